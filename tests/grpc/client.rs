//! A tonic client of any method, whose messages are texts.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// A message that consists of its text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(String::from_utf8(bytes.to_vec()).unwrap()))
    }
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) struct Client(Channel);

impl Client {
    /// Connects to an address and uses this name as its authority.
    pub(super) fn new(address: SocketAddr, name: &str) -> Self {
        let connector = tower::service_fn(move |_| async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        });
        let endpoint = Endpoint::from_shared(name.to_owned())
            .unwrap()
            .http2_max_header_list_size(1024 * 1024);
        Self(endpoint.connect_with_connector_lazy(connector))
    }

    async fn ready(&self) -> tonic::client::Grpc<Channel> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await.unwrap();
        client
    }

    pub(super) async fn unary(
        &self,
        method: &str,
        request: Request<String>,
    ) -> Result<Response<String>, Status> {
        let mut client = self.ready().await;
        client.unary(request, path(method), Text).await
    }

    pub(super) async fn server_streaming(
        &self,
        method: &str,
        text: &str,
    ) -> Result<Streaming<String>, Status> {
        let mut client = self.ready().await;
        let request = Request::new(text.to_owned());
        let answer = client.server_streaming(request, path(method), Text).await?;
        Ok(answer.into_inner())
    }

    pub(super) async fn client_streaming(
        &self,
        method: &str,
        texts: mpsc::Receiver<String>,
    ) -> Result<String, Status> {
        let mut client = self.ready().await;
        let request = Request::new(ReceiverStream::new(texts));
        let answer = client.client_streaming(request, path(method), Text).await?;
        Ok(answer.into_inner())
    }

    pub(super) async fn bidirectional(
        &self,
        method: &str,
        texts: mpsc::Receiver<String>,
    ) -> Result<Streaming<String>, Status> {
        let mut client = self.ready().await;
        let request = Request::new(ReceiverStream::new(texts));
        let answer = client.streaming(request, path(method), Text).await?;
        Ok(answer.into_inner())
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}
