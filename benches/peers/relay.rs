//! A hop below HTTP, like the node proxies of service meshes: it copies bytes between a connection of the app and one of
//! its own over TLS.
//!
//! It cannot add a token or reuse a connection to the upstream. It is the lower bound of a proxy with rustls.

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use crate::support::Failure;
use crate::support::hop::Origin;

/// hyper's buffers grow to as much for large bodies. With 64 KiB an upload takes a tenth more CPU.
const BUFFER: usize = 256 * 1024;

/// Copies until the process ends.
pub async fn serve(listener: TcpListener, origin: Origin) -> std::io::Result<()> {
    loop {
        let (app, _) = listener.accept().await?;
        app.set_nodelay(true)?;
        let origin = origin.clone();
        // The caller closes its connections when its time is up.
        tokio::spawn(async move { copy(app, &origin).await.ok() });
    }
}

async fn copy(mut app: TcpStream, origin: &Origin) -> Result<(), Failure> {
    let tls = origin.tls.as_ref().ok_or("the upstream has no TLS")?;
    let mut upstream = origin.secure(tls, origin.tcp().await?).await?;
    copy_bidirectional_with_sizes(&mut app, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}
