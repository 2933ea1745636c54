//! Sending a mail to the operator's server, over SMTP (RFC 5321, 3207, 4954).
//!
//! One connection per mail: alerts are rare. Until the connection is as safe as it was configured to
//! be, nothing is said on it but who we are not. A mail that some recipients are refused for is sent to
//! the others: a mistyped address must not silence an alert, and what was taken cannot be taken back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::commands;
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::letter::{Mail, MailError, Refused, Sent, address, written};
use super::{CONNECT_TIMEOUT, Clients, TargetError, addresses, check_host};
use crate::model::{AllowedHosts, MailChannel, MailEncryption};

/// What a server may say in all, handshakes included, before it is not listened to any more.
const SAID_BYTES_MAX: usize = 256 * 1024;
/// Bytes that are looked at for the end of a line.
const LOOK_BYTES: usize = 2048;
/// How long the farewell may take: the mail was taken already.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

impl Clients {
    /// Sends a mail, if `hosts` has the server, by its name or by the address that is connected to.
    ///
    /// # Errors
    /// [`MailError`]; unless it is [`MailError::Timeout`] or [`MailError::Broken`] nobody got it.
    pub async fn mail(&self, mail: &Mail, hosts: &AllowedHosts) -> Result<Sent, MailError> {
        let done = timeout(mail.timeout, self.hand_in(mail, hosts)).await;
        let (mut connection, sent) = done.unwrap_or(Err(MailError::Timeout))?;
        // What goes wrong from here on does not make the mail unsent.
        drop(timeout(QUIT_TIMEOUT, connection.quit()).await);
        Ok(sent)
    }

    async fn hand_in(
        &self,
        mail: &Mail,
        hosts: &AllowedHosts,
    ) -> Result<(AsyncSmtpConnection, Sent), MailError> {
        let (channel, bytes) = (&*mail.channel, written(mail)?);
        let mut connection = self.connected(channel, hosts).await?;
        if let Some(known) = &channel.credentials {
            let credentials = Credentials::new(known.username.clone(), known.password.clone());
            let ways = [Mechanism::Plain, Mechanism::Login];
            step(connection.auth(&ways, &credentials).await)?;
        }
        let sender = commands::Mail::new(Some(address(&channel.from)?), Vec::new());
        step(connection.command(sender).await)?;
        let mut refused: Vec<(Refused, MailError)> = Vec::new();
        for recipient in &channel.to {
            let command = commands::Rcpt::new(address(recipient)?, Vec::new());
            match step(connection.command(command).await) {
                Ok(()) => {}
                Err(error @ (MailError::PutOff(_) | MailError::Refused(_))) => {
                    let (address, answer) = (recipient.clone(), error.to_string());
                    refused.push((Refused { address, answer }, error));
                }
                Err(error) => return Err(error),
            }
        }
        if refused.len() == channel.to.len() {
            // One that was only put off may be taken later.
            let (later, never): (Vec<_>, Vec<_>) =
                refused.into_iter().partition(|(_, error)| !error.is_for_good());
            let first = later.into_iter().chain(never).next();
            let none = || MailError::Unfit("there are no recipients".to_owned());
            return Err(first.map_or_else(none, |(_, error)| error));
        }
        step(connection.command(commands::Data).await)?;
        step(connection.message(&bytes).await)?;
        let refused = refused.into_iter().map(|(refused, _)| refused).collect();
        Ok((connection, Sent { refused }))
    }

    /// A connection as safe as it has to be.
    async fn connected(
        &self,
        channel: &MailChannel,
        hosts: &AllowedHosts,
    ) -> Result<AsyncSmtpConnection, MailError> {
        let server = channel.server.as_str();
        check_host(server, hosts)?;
        let found = addresses(server, channel.port, hosts).await.map_err(|error| {
            let refusal = error.downcast_ref::<TargetError>().cloned();
            refusal.map_or_else(|| MailError::Connect(error.to_string()), MailError::NotAllowed)
        })?;
        let in_clear = channel.encryption == MailEncryption::None;
        let secret = channel.credentials.is_some();
        let mut last = MailError::Connect("the name leads nowhere this may be sent".to_owned());
        // A password in clear does not leave this machine, whatever its name for itself leads to.
        for addr in found.into_iter().filter(|addr| !in_clear || !secret || addr.ip().is_loopback())
        {
            match self.connected_at(addr, channel).await {
                Err(error @ MailError::Connect(_)) => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    async fn connected_at(
        &self,
        addr: SocketAddr,
        channel: &MailChannel,
    ) -> Result<AsyncSmtpConnection, MailError> {
        if channel.encryption == MailEncryption::Tls {
            // The server has proved who it is before it says a line.
            let (tls, hello) = (self.tls(channel)?, ClientId::default());
            let wait = Some(CONNECT_TIMEOUT);
            let made = AsyncSmtpConnection::connect_tokio1(addr, wait, &hello, Some(tls), None);
            return made.await.map_err(|error| match MailError::of(&error) {
                MailError::Broken(why) => MailError::Connect(why),
                other => other,
            });
        }
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await;
        let stream = stream.map_err(|_| MailError::Connect("no answer in time".to_owned()))?;
        let stream = stream.map_err(|error| MailError::Connect(error.to_string()))?;
        let hello = match stream.local_addr().map(|own| own.ip().to_canonical()) {
            Ok(IpAddr::V4(own)) => ClientId::Ipv4(own),
            Ok(IpAddr::V6(own)) => ClientId::Ipv6(own),
            Err(_) => ClientId::default(),
        };
        let stream = Box::new(Lines { stream, left: SAID_BYTES_MAX });
        let made = AsyncSmtpConnection::connect_with_transport(stream, &hello).await;
        let mut connection = made.map_err(|error| MailError::of(&error))?;
        if channel.encryption == MailEncryption::StartTls {
            step(connection.starttls(self.tls(channel)?, &hello).await)?;
        }
        Ok(connection)
    }

    /// Mozilla's authorities and those of the operator, for the server's name.
    fn tls(&self, channel: &MailChannel) -> Result<TlsParameters, MailError> {
        let builder = TlsParameters::builder(channel.server.clone())
            .certificate_store(CertificateStore::WebpkiRoots);
        let more = Certificate::from_pem(&self.0.pem).map_err(|error| MailError::of(&error))?;
        builder.add_root_certificate(more).build_rustls().map_err(|error| MailError::of(&error))
    }
}

fn step<T>(done: Result<T, lettre::transport::smtp::Error>) -> Result<(), MailError> {
    done.map(drop).map_err(|error| MailError::of(&error))
}

/// A connection that gives what was said line by line, and so much in all.
///
/// The library keeps what it has read beyond a line over the change to TLS: somebody in between could
/// say the server's part in clear, and have it count as if the server had said it. So it is never given
/// more than it asked for, and what came too early is met by the handshake. It also reads on until a
/// line ends, however long that is.
#[derive(Debug)]
struct Lines {
    stream: TcpStream,
    left: usize,
}

impl AsyncRead for Lines {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut bytes = [0; LOOK_BYTES];
        let most = out.remaining().min(bytes.len()).min(this.left);
        if this.left == 0 {
            return Poll::Ready(Err(io::Error::other("the mail server says too much")));
        }
        let mut ahead = ReadBuf::new(&mut bytes[..most]);
        ready!(this.stream.poll_peek(context, &mut ahead))?;
        let came = ahead.filled();
        let line = came.iter().position(|byte| *byte == b'\n').map_or(came.len(), |end| end + 1);
        let mut taken = ReadBuf::new(&mut bytes[..line]);
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut taken))?;
        this.left -= taken.filled().len();
        out.put_slice(taken.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncTokioStream for Lines {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::testing::mailbox::{Mailbox, Manner, Rules};
    use super::super::testing::{self, acceptor};
    use super::*;
    use crate::model::MailCredentials;

    fn known(password: &str) -> Option<MailCredentials> {
        let (username, password) = ("fleet".to_owned(), password.to_owned());
        Some(MailCredentials { username, password })
    }

    fn rules() -> Rules {
        Rules { login: Some(("fleet".to_owned(), "hunter2".to_owned())), ..Rules::default() }
    }

    /// A mail to three, over the server at `addr`.
    fn mail(addr: SocketAddr, change: impl FnOnce(&mut MailChannel)) -> Mail {
        let mut mail = testing::mail(&["a@example.com", "b@example.com", "c@example.com"]);
        let channel = Arc::get_mut(&mut mail.channel).unwrap();
        channel.port = addr.port();
        change(channel);
        mail
    }

    async fn send(clients: &Clients, mail: &Mail) -> Result<Sent, MailError> {
        clients.mail(mail, &AllowedHosts::default()).await
    }

    #[tokio::test]
    async fn a_mail_in_clear_reaches_all_recipients() {
        let (mailbox, addr) = Mailbox::start(Manner::Clear, Rules::default()).await;
        let mut mail = mail(addr, |_| ());
        mail.text = "a\n.\nQUIT\n..b \u{e9}".to_owned();
        assert_eq!(send(&Clients::default(), &mail).await, Ok(Sent::default()));
        let letters = mailbox.letters();
        assert_eq!((letters.len(), &letters[0].to), (1, &mail.channel.to));
        assert_eq!(letters[0].from, "fleet@example.com");
        assert_eq!(letters[0].header("Message-ID"), Some("<quorate.7.00ab@example.com>"));
        assert_eq!(letters[0].text.as_bytes(), written_as_received(&mail));
        assert!(mailbox.heard().contains(&"EHLO [127.0.0.1]".to_owned()), "{:?}", mailbox.heard());
    }

    /// With the line end that every letter has.
    fn written_as_received(mail: &Mail) -> Vec<u8> {
        let mut bytes = written(mail).unwrap();
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    #[tokio::test]
    async fn passwords_are_told_to_whom_an_authority_vouches_for_alone() {
        for (encryption, manner) in [
            (MailEncryption::StartTls, Manner::StartTls(acceptor())),
            (MailEncryption::Tls, Manner::Tls(acceptor())),
        ] {
            let (mailbox, addr) = Mailbox::start(manner, rules()).await;
            let mail = |password: &str| {
                mail(addr, |channel| {
                    channel.encryption = encryption;
                    channel.credentials = known(password);
                })
            };
            let error = send(&Clients::default(), &mail("hunter2")).await.unwrap_err();
            assert!(!error.is_for_good() && error.to_string().contains("certificate"), "{error}");
            assert!(!mailbox.heard().iter().any(|line| line.starts_with("AUTH")));
            let error = send(&testing::clients(), &mail("wrong")).await.unwrap_err();
            assert_eq!(error, MailError::Refused("535: 5.7.8 who are you".to_owned()));
            assert!(error.is_for_good());
            send(&testing::clients(), &mail("hunter2")).await.unwrap();
            let letters = mailbox.letters();
            assert_eq!((letters.len(), letters[0].secure), (1, true));
            assert_eq!(letters[0].login.as_deref(), Some("fleet"));
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_turn_to_tls_is_told_nothing() {
        let (mailbox, addr) = Mailbox::start(Manner::Clear, rules()).await;
        let mail = mail(addr, |channel| {
            channel.encryption = MailEncryption::StartTls;
            channel.credentials = known("hunter2");
        });
        let error = send(&testing::clients(), &mail).await.unwrap_err();
        assert!(matches!(error, MailError::Broken(_)) && !error.is_for_good(), "{error}");
        let heard = mailbox.heard();
        assert!(heard.iter().all(|line| line.starts_with("EHLO")), "{heard:?}");
    }

    #[tokio::test]
    async fn what_is_said_in_clear_behind_starttls_does_not_count() {
        // Whoever sits in between answers before TLS what is only asked behind it.
        let said_too_early = "\r\n250-mailbox.test\r\n250 AUTH PLAIN";
        let rules = Rules { said_too_early, ..rules() };
        let (mailbox, addr) = Mailbox::start(Manner::StartTls(acceptor()), rules).await;
        let mail = mail(addr, |channel| {
            channel.encryption = MailEncryption::StartTls;
            channel.credentials = known("hunter2");
        });
        let error = send(&testing::clients(), &mail).await.unwrap_err();
        assert!(matches!(error, MailError::Broken(_)), "{error}");
        assert!(!mailbox.heard().iter().any(|line| line.starts_with("AUTH")));
    }

    #[tokio::test]
    async fn one_recipient_that_is_refused_does_not_keep_the_others_waiting() {
        let refused = |answers: &[(&str, &str)]| Rules {
            refused: answers
                .iter()
                .map(|(to, how)| ((*to).to_owned(), (*how).to_owned()))
                .collect(),
            ..Rules::default()
        };
        let rules =
            refused(&[("b@example.com", "550 5.1.1 nobody"), ("c@example.com", "450 busy")]);
        let (mailbox, addr) = Mailbox::start(Manner::Clear, rules).await;
        let sent = send(&Clients::default(), &mail(addr, |_| ())).await.unwrap();
        let answers: Vec<_> = sent.refused.iter().map(|one| one.answer.as_str()).collect();
        assert_eq!(answers, ["answered 550: 5.1.1 nobody", "answered 450: busy"]);
        assert_eq!(mailbox.letters()[0].to, ["a@example.com"]);
        // With nobody left nothing is sent; one that is put off may be taken later.
        let all = [("a@example.com", "550 no"), ("b@example.com", "450 busy")];
        for (answers, for_good) in [(&all[..1], true), (&all[..], false)] {
            let (mailbox, addr) = Mailbox::start(Manner::Clear, refused(answers)).await;
            let mail = mail(addr, |channel| channel.to.truncate(answers.len()));
            let error = send(&Clients::default(), &mail).await.unwrap_err();
            assert_eq!((error.is_for_good(), mailbox.letters().len()), (for_good, 0), "{error}");
        }
    }

    #[tokio::test]
    async fn the_list_of_allowed_hosts_counts_for_mail() {
        let (mailbox, addr) = Mailbox::start(Manner::Clear, Rules::default()).await;
        let mail = mail(addr, |_| ());
        for (list, goes) in [
            ("localhost", true),
            ("127.0.0.0/8", true),
            ("10.0.0.0/8", false),
            ("a.example", false),
        ] {
            let hosts = AllowedHosts::parse([list].into_iter()).unwrap();
            let sent = Clients::default().mail(&mail, &hosts).await;
            let refusal = MailError::NotAllowed(TargetError::NotAllowed("localhost".to_owned()));
            assert_eq!(sent, if goes { Ok(Sent::default()) } else { Err(refusal) }, "{list}");
        }
        assert_eq!(mailbox.letters().len(), 2);
    }

    #[tokio::test]
    async fn a_server_that_never_ends_a_line_is_not_listened_to_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = 0;
            while stream.write_all(&[b'2'; 4096]).await.is_ok() {
                said += 4096;
            }
            said
        });
        let error = send(&Clients::default(), &mail(addr, |_| ())).await.unwrap_err();
        assert_eq!(error, MailError::Broken("the mail server says too much".to_owned()));
        // What lies between the two counts as said.
        assert!(server.await.unwrap() >= SAID_BYTES_MAX);
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_who_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut silent = mail(listener.local_addr().unwrap(), |_| ());
        silent.timeout = Duration::from_millis(50);
        let error = send(&Clients::default(), &silent).await.unwrap_err();
        assert_eq!(error, MailError::Timeout);
        drop(listener);
        let error = send(&Clients::default(), &silent).await.unwrap_err();
        assert!(matches!(error, MailError::Connect(_)), "{error}");
    }
}
