//! The connector port: how bytes reach another member.
//!
//! Production speaks TCP; the simulation brings its own implementation with a network that drops,
//! delays and partitions. It is the only door of this room to the outside, so one seed decides
//! everything that crosses it.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A future behind a pointer, so that the port can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection, whatever carries it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A connection behind a pointer.
pub type BoxedStream = Box<dyn ByteStream>;

/// Opens connections and listeners. Addresses are `host:port` texts.
pub trait Net: Send + Sync + 'static {
    /// Connects to `addr`.
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxedStream>>;

    /// Starts listening on `addr`.
    fn bind(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// Takes connections.
pub trait Listener: Send + 'static {
    /// The next connection, and a text that names its far end in logs.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedStream, String)>>;

    /// Where it listens: tells the port that was chosen when 0 was asked for.
    fn local_addr(&self) -> String;
}

/// Real TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

impl Net for TcpNet {
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let addr = addr.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let addr = addr.to_owned();
        Box::pin(async move {
            let listener = TcpListener::bind(addr).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedStream, String)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxedStream, from.to_string()))
        })
    }

    fn local_addr(&self) -> String {
        TcpListener::local_addr(self).map_or_else(|_| String::new(), |addr| addr.to_string())
    }
}

/// A network with nobody in it, for tests of a member that is alone.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Nobody;

#[cfg(test)]
impl Net for Nobody {
    fn connect(&self, _: &str) -> BoxFuture<'static, io::Result<BoxedStream>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())))
    }

    fn bind(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(std::future::ready(Ok(Box::new(Self) as Box<dyn Listener>)))
    }
}

#[cfg(test)]
impl Listener for Nobody {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedStream, String)>> {
        Box::pin(std::future::pending())
    }

    fn local_addr(&self) -> String {
        "alone:7000".to_owned()
    }
}
