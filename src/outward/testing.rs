//! Servers on loopback for tests of whatever calls outside. The authority behind their certificate was
//! made for these tests, and its key was thrown away.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::{Clients, Mail};
use crate::model::{MailChannel, MailEncryption};

#[path = "../../tests/shared/mailbox.rs"]
pub(crate) mod mailbox;

const AUTHORITY: &[u8] = include_bytes!("testcerts/authority.pem");
const CERTIFICATE: &[u8] = include_bytes!("testcerts/server.pem");
const KEY: &[u8] = include_bytes!("testcerts/server.key");

/// Clients that believe the servers of [`serve_tls`].
pub(crate) fn clients() -> Clients {
    Clients::trusting(AUTHORITY).unwrap()
}

/// Serves plain HTTP on `localhost`.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

/// Speaks TLS as `localhost` and `127.0.0.1`.
pub(crate) fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}

/// A mail to `to`, over a server in clear on a port that is still to be set.
pub(crate) fn mail(to: &[&str]) -> Mail {
    let channel = MailChannel {
        server: "localhost".to_owned(),
        port: 0,
        encryption: MailEncryption::None,
        credentials: None,
        from: "fleet@example.com".to_owned(),
        to: to.iter().map(|&to| to.to_owned()).collect(),
    };
    Mail {
        channel: Arc::new(channel),
        number: "quorate.7.00ab".to_owned(),
        dated_ms: 1_763_691_200_000,
        subject: "[warning] node_failure_rate_threshold active".to_owned(),
        text: "it fails\n\nvalue: 2.500\n".to_owned(),
        timeout: Duration::from_secs(10),
    }
}

/// Serves HTTPS as `localhost` and `127.0.0.1`.
pub(crate) async fn serve_tls(router: Router) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let listener = TlsListener { tcp, acceptor: acceptor() };
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, addr) = self.tcp.accept().await.unwrap();
            // Whoever does not believe us hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, addr);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
