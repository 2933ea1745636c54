//! The connector over turmoil's simulated network.

use std::io;

use quorate::cluster::net::{BoxFuture, BoxedStream, Listener, Net};
use turmoil::net::{TcpListener, TcpStream};

pub(crate) struct SimNet;

impl Net for SimNet {
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let addr = addr.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn bind(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let port = addr.rsplit(':').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            let listener = TcpListener::bind(format!("0.0.0.0:{port}")).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }
}

struct SimListener(TcpListener);

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedStream, String)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((Box::new(stream) as BoxedStream, from.to_string()))
        })
    }

    fn local_addr(&self) -> String {
        self.0.local_addr().map_or_else(|_| String::new(), |addr| addr.to_string())
    }
}
