//! Clients for what lies outside: callbacks, webhooks, models, APIs and inputs that somebody named.
//!
//! They speak http and https, believe Mozilla's authorities and those an operator adds, follow no
//! redirects and use no proxy: both would be an address that nobody looked at. What a client of the
//! cluster named is only called when [`AllowedHosts`] has it, by the name in the URL or by the address
//! that is really connected to, so a name that changes its address between two looks wins nothing.
//! Mail goes by the same rules ([`mail`](Clients::mail)).

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Url};

use crate::model::AllowedHosts;

mod letter;
mod smtp;

#[cfg(test)]
pub(crate) mod testing;

pub use letter::{Mail, MailError, Refused, Sent};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections are dropped before the usual servers do it (uvicorn: after 5 s), so that a call is
/// not sent into one that is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why an address is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing that could be called.
    #[error("`{0}` is no http or https URL")]
    NoUrl(String),
    /// The operator's list does not have it.
    #[error("the host {0} is not on the list of allowed hosts")]
    NotAllowed(String),
}

/// Reads a URL and looks its host up on the list. A name that no pattern has may still lie in one of
/// the networks: that is seen when it is connected to.
///
/// # Errors
/// [`TargetError`].
pub fn target(text: &str, hosts: &AllowedHosts) -> Result<Url, TargetError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| TargetError::NoUrl(text.to_owned()))?;
    check(&url, hosts)?;
    Ok(url)
}

/// As [`target`], of a URL that was read already.
///
/// # Errors
/// [`TargetError::NotAllowed`].
pub fn check(url: &Url, hosts: &AllowedHosts) -> Result<(), TargetError> {
    check_host(url.host_str().unwrap_or_default(), hosts)
}

/// As [`target`], of a host alone.
///
/// # Errors
/// [`TargetError::NotAllowed`].
pub fn check_host(host: &str, hosts: &AllowedHosts) -> Result<(), TargetError> {
    if hosts.is_open() {
        return Ok(());
    }
    let allowed = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => hosts.admits_address(address),
        Err(_) => hosts.admits_name(host) || hosts.has_networks(),
    };
    if allowed { Ok(()) } else { Err(TargetError::NotAllowed(host.to_owned())) }
}

/// Whether the list is what a call failed by.
#[must_use]
pub fn refusal(error: &reqwest::Error) -> Option<TargetError> {
    causes(error).find_map(|cause| cause.downcast_ref::<TargetError>()).cloned()
}

/// The innermost cause says most: "connection refused" rather than "error sending request".
#[must_use]
pub fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |cause| Error::source(*cause))
}

/// Makes clients that believe the same authorities. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Beside Mozilla's.
    authorities: Vec<Certificate>,
    /// The same for mail.
    pem: Vec<u8>,
    /// The client of the newest list. With another list all connections are made anew.
    kept: Mutex<Option<(AllowedHosts, Client)>>,
}

impl Clients {
    /// Believes the authorities of `pem`, too.
    ///
    /// # Errors
    /// When it holds no certificate.
    pub fn trusting(pem: &[u8]) -> Result<Self, String> {
        let authorities = Certificate::from_pem_bundle(pem).map_err(|error| innermost(&error))?;
        if authorities.is_empty() {
            return Err("holds no certificate".to_owned());
        }
        Ok(Self(Arc::new(Inner { authorities, pem: pem.to_vec(), kept: Mutex::default() })))
    }

    /// As [`Self::trusting`], from a file.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn reading(path: &Path) -> Result<Self, String> {
        let wrong = |what: String| format!("{}: {what}", path.display());
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Self::trusting(&pem).map_err(wrong)
    }

    /// What all clients have in common. The time of a call is the caller's to bound.
    pub fn builder(&self) -> ClientBuilder {
        let builder = Client::builder()
            .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT);
        let authorities = self.0.authorities.iter().cloned();
        authorities.fold(builder, ClientBuilder::add_root_certificate)
    }

    /// A client that connects to what `hosts` has. Addresses in URLs are not looked up, so they never
    /// come to it: ask [`target`] or [`check`] before each call.
    ///
    /// # Errors
    /// When no client can be built on this machine.
    pub fn within(&self, hosts: &AllowedHosts) -> Result<Client, String> {
        let mut kept = self.0.kept.lock();
        if let Some((list, client)) = &*kept
            && list == hosts
        {
            return Ok(client.clone());
        }
        let resolver = Arc::new(Within(Arc::new(hosts.clone())));
        let client = self.builder().dns_resolver(resolver).build();
        let client = client.map_err(|error| innermost(&error))?;
        *kept = Some((hosts.clone(), client.clone()));
        Ok(client)
    }
}

/// Those addresses of a host that may be connected to.
async fn addresses(
    name: &str,
    port: u16,
    hosts: &AllowedHosts,
) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
    let found = tokio::net::lookup_host((name, port)).await?;
    let whole = hosts.admits_name(name);
    let allowed: Vec<SocketAddr> =
        found.filter(|address| whole || hosts.admits_address(address.ip())).collect();
    if allowed.is_empty() {
        return Err(TargetError::NotAllowed(name.to_owned()).into());
    }
    Ok(allowed)
}

/// [`addresses`] for HTTP.
#[derive(Debug)]
struct Within(Arc<AllowedHosts>);

impl Resolve for Within {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = Arc::clone(&self.0);
        Box::pin(async move {
            // Port 0 stands for the one in the URL.
            let allowed = addresses(name.as_str(), 0, &hosts).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;

    use super::*;

    fn hosts(list: &[&str]) -> AllowedHosts {
        AllowedHosts::parse(list.iter().copied()).unwrap()
    }

    #[test]
    fn urls_are_looked_up_as_they_are_called() {
        let list = hosts(&["hooks.example", "10.0.0.0/8", "fd00::/16"]);
        let names = hosts(&["hooks.example"]);
        for (url, by_list, by_names) in [
            ("http://hooks.example/x", true, true),
            ("https://HOOKS.example:8443", true, true),
            // Which address a name has is seen later.
            ("http://other.example", true, false),
            ("http://10.1.2.3:80/", true, false),
            ("http://[fd00::1]/", true, false),
            // Whoever writes an address oddly means that address.
            ("http://0x0a000001/", true, false),
            ("http://127.1/", false, false),
            ("http://2130706433/", false, false),
            ("http://[::ffff:127.0.0.1]/", false, false),
            ("http://hooks.example@127.0.0.1/", false, false),
            ("http://127.0.0.1\\@hooks.example/", false, false),
        ] {
            assert_eq!(target(url, &list).is_ok(), by_list, "{url}");
            assert_eq!(target(url, &names).is_ok(), by_names, "{url}");
            assert!(target(url, &AllowedHosts::default()).is_ok(), "{url}");
        }
        for wrong in ["ftp://a", "file:///etc/passwd", "a", "", "http://"] {
            let error = target(wrong, &AllowedHosts::default()).unwrap_err();
            assert_eq!(error, TargetError::NoUrl(wrong.to_owned()));
        }
    }

    #[tokio::test]
    async fn a_name_is_connected_to_where_the_list_has_its_address() {
        let router = Router::new().route("/", get(|| async { "in" }));
        let addr = testing::serve(router).await;
        let url = format!("http://localhost:{}/", addr.port());
        let clients = Clients::default();
        for (list, gets_in) in [
            (&[][..], true),
            (&["localhost"], true),
            (&["127.0.0.0/8", "::1"], true),
            (&["10.0.0.0/8"], false),
            (&["other.example"], false),
        ] {
            let answer = clients.within(&hosts(list)).unwrap().get(&url).send().await;
            match answer {
                Ok(answer) => assert!(gets_in && answer.status() == 200, "{list:?}"),
                Err(error) => {
                    assert!(!gets_in, "{list:?}: {error:?}");
                    let why = TargetError::NotAllowed("localhost".to_owned());
                    assert_eq!(refusal(&error), Some(why.clone()));
                    assert_eq!(innermost(&error), why.to_string());
                }
            }
        }
    }

    #[tokio::test]
    async fn https_is_spoken_with_whom_an_authority_vouches_for() {
        let router = Router::new().route("/", get(|| async { "in" }));
        let addr = testing::serve_tls(router).await;
        let url = format!("https://localhost:{}/", addr.port());
        let open = AllowedHosts::default();
        let trusting = testing::clients().within(&open).unwrap();
        assert_eq!(trusting.get(&url).send().await.unwrap().text().await.unwrap(), "in");
        let stranger = Clients::default().within(&open).unwrap();
        let error = stranger.get(&url).send().await.unwrap_err();
        assert!(error.is_connect() && refusal(&error).is_none(), "{error:?}");
        assert!(Clients::trusting(b"nothing").is_err());
    }
}
