//! A network path between two peers. It can block one direction while the other goes on.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::upstream::soon;

/// A relay to one address.
pub struct Path {
    pub address: SocketAddr,
    held_up: watch::Sender<bool>,
    held_down: watch::Sender<bool>,
    down: watch::Sender<u64>,
    up: watch::Sender<u64>,
}

impl Path {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = Self {
            address: listener.local_addr().unwrap(),
            held_up: watch::Sender::new(false),
            held_down: watch::Sender::new(false),
            down: watch::Sender::new(0),
            up: watch::Sender::new(0),
        };
        let (held_up, held_down) = (path.held_up.clone(), path.held_down.clone());
        let (up, down) = (path.up.clone(), path.down.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(target).await.unwrap();
                for stream in [&near, &far] {
                    stream.set_nodelay(true).unwrap();
                }
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(carry(near_read, far_write, held_up.subscribe(), up.clone()));
                tokio::spawn(carry(
                    far_read,
                    near_write,
                    held_down.subscribe(),
                    down.clone(),
                ));
            }
        });
        path
    }

    /// Returns a path with this delay in each direction and unlimited bandwidth.
    pub async fn long(target: SocketAddr, delay: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(target).await.unwrap();
                for stream in [&near, &far] {
                    stream.set_nodelay(true).unwrap();
                }
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                delayed(near_read, far_write, delay);
                delayed(far_read, near_write, delay);
            }
        });
        address
    }

    /// Blocks bytes to the target. Its windows stay as they are.
    pub fn hold_up(&self) {
        self.held_up.send_replace(true);
    }

    /// Blocks bytes from the target.
    pub fn hold_down(&self) {
        self.held_down.send_replace(true);
    }

    /// Unblocks both directions.
    pub fn release(&self) {
        self.held_up.send_replace(false);
        self.held_down.send_replace(false);
    }

    /// Waits until this total number of bytes has come from the target.
    pub async fn came_down(&self, bytes: u64) {
        let mut down = self.down.subscribe();
        soon(down.wait_for(|down| *down >= bytes)).await.unwrap();
    }

    /// Waits until this total number of bytes has gone to the target.
    pub async fn went_up(&self, bytes: u64) {
        let mut up = self.up.subscribe();
        soon(up.wait_for(|up| *up >= bytes)).await.unwrap();
    }

    /// Returns the number of bytes from the target so far.
    pub fn down(&self) -> u64 {
        *self.down.borrow()
    }

    /// Returns the number of bytes to the target so far.
    pub fn up(&self) -> u64 {
        *self.up.borrow()
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
    carried: watch::Sender<u64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if held.wait_for(|held| !held).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
        carried.send_modify(|carried| *carried += count as u64);
    }
}

fn delayed(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let (sent, mut arriving) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let _ = sent.send((Instant::now() + delay, buffer[..count].to_vec()));
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}
