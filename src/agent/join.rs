//! Registration: with any member, and again every ten seconds, which is the heartbeat (contract 4.7).
//! When a member does not answer, the next one is asked.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::caller;
use super::proto::AgentRegistration;
use super::proto::agent_service_client::AgentServiceClient;
use crate::client::{self, Call, Client};
use crate::clock;

/// One try with one member. A follower may have to wait for a new leader.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Asking a member for the addresses of all.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// Members that are remembered.
const MEMBERS_MAX: usize = 64;

/// The members as an agent knows them.
#[derive(Debug)]
pub(super) struct Members {
    /// Given as `host:port`.
    direct: Vec<String>,
    /// Given as `http://host:port`: a member's REST API, which knows the gRPC addresses of all.
    rest: Option<Client>,
    rest_urls: Vec<String>,
    /// What that said.
    found: Vec<String>,
    /// Who answered last.
    preferred: Option<String>,
    channels: HashMap<String, Channel>,
    api_key: Option<MetadataValue<Ascii>>,
}

/// Why a registration did not come about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotRegistered {
    /// The cluster decided against it.
    Refused(String),
    /// No member could be asked, or none could decide.
    Unreachable(String),
}

impl Members {
    /// # Errors
    /// In words, what is wrong with an address or the key.
    pub(super) fn new(join: &[String], api_key: Option<&str>) -> Result<Self, String> {
        let (mut direct, mut rest_urls) = (Vec::new(), Vec::new());
        for address in join.iter().map(|address| address.trim()).filter(|text| !text.is_empty()) {
            if address.starts_with("http://") {
                rest_urls.push(address.to_owned());
            } else {
                let plain = address.strip_prefix("grpc://").unwrap_or(address);
                caller::connector(plain, CONNECT_TIMEOUT)?;
                direct.push(plain.to_owned());
            }
        }
        if direct.is_empty() && rest_urls.is_empty() {
            return Err("an agent needs a member to join".to_owned());
        }
        let rest = if rest_urls.is_empty() { None } else { Some(rest(&rest_urls, api_key)?) };
        let key = api_key.map(MetadataValue::try_from).transpose();
        Ok(Self {
            direct,
            rest,
            rest_urls,
            found: Vec::new(),
            preferred: None,
            channels: HashMap::new(),
            api_key: key.map_err(|_| "the API key has signs that no header may have".to_owned())?,
        })
    }

    /// The address by which members see this machine: the one it has on the way to a member.
    pub(super) async fn own_address(&self) -> Option<std::net::IpAddr> {
        let rest = self.rest_urls.iter().filter_map(|url| url.strip_prefix("http://"));
        for member in self.direct.iter().map(String::as_str).chain(rest) {
            let member = member.split('/').next().unwrap_or_default();
            let Ok(mut addrs) = tokio::net::lookup_host(member).await else { continue };
            let Some(addr) = addrs.next() else { continue };
            let any: SocketAddr =
                if addr.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            // Connecting a datagram socket sends nothing; it chooses the address.
            let Ok(socket) = UdpSocket::bind(any).await else { continue };
            if socket.connect(addr).await.is_ok()
                && let Ok(own) = socket.local_addr()
            {
                return Some(own.ip());
            }
        }
        None
    }

    /// Asks the members in turn until one has registered the agent or refused it.
    pub(super) async fn register(
        &mut self,
        registration: &AgentRegistration,
    ) -> Result<(), NotRegistered> {
        if self.found.is_empty() {
            self.discover().await;
        }
        let mut last = "no member has a gRPC address".to_owned();
        for member in self.in_turn() {
            match self.ask(&member, registration).await {
                Ok(()) => {
                    self.preferred = Some(member);
                    return Ok(());
                }
                Err(NotRegistered::Refused(why)) => return Err(NotRegistered::Refused(why)),
                Err(NotRegistered::Unreachable(why)) => {
                    tracing::debug!(member, why, "this member does not register agents");
                    last = format!("{member}: {why}");
                    self.channels.remove(&member);
                }
            }
        }
        // Members may have come that this agent does not know.
        self.preferred = None;
        self.found.clear();
        Err(NotRegistered::Unreachable(last))
    }

    /// Who answered last, then the others.
    fn in_turn(&self) -> Vec<String> {
        let mut turn: Vec<String> = self.preferred.iter().cloned().collect();
        for member in self.direct.iter().chain(&self.found) {
            if !turn.contains(member) {
                turn.push(member.clone());
            }
        }
        turn
    }

    async fn ask(
        &mut self,
        member: &str,
        registration: &AgentRegistration,
    ) -> Result<(), NotRegistered> {
        let channel = match self.channels.get(member) {
            Some(channel) => channel.clone(),
            None => {
                let connector = caller::connector(member, CONNECT_TIMEOUT);
                let channel = connector.map_err(NotRegistered::Unreachable)?.connect_lazy();
                self.channels.insert(member.to_owned(), channel.clone());
                channel
            }
        };
        let mut request = Request::new(registration.clone());
        request.set_timeout(TRY_TIMEOUT);
        if let Some(key) = &self.api_key {
            request.metadata_mut().insert("x-api-key", key.clone());
        }
        let mut client = AgentServiceClient::new(channel);
        let answer = match timeout(TRY_TIMEOUT, client.register_agent(request)).await {
            Err(_elapsed) => {
                return Err(NotRegistered::Unreachable("no answer in time".to_owned()));
            }
            Ok(answer) => answer,
        };
        match answer {
            Ok(response) => {
                let response = response.into_inner();
                if response.success {
                    return Ok(());
                }
                Err(NotRegistered::Refused(response.message))
            }
            Err(status) => {
                let why = format!("{:?}: {}", status.code(), caller::innermost(&status));
                Err(match status.code() {
                    Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => {
                        NotRegistered::Refused(why)
                    }
                    _ => NotRegistered::Unreachable(why),
                })
            }
        }
    }

    /// Learns the gRPC addresses of all members over REST, when such a member was given.
    async fn discover(&mut self) {
        let Some(rest) = &self.rest else { return };
        let call = Call::get("/api/v1/cluster").deadline(DISCOVER_TIMEOUT);
        let answer = match rest.call(call).await {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!(%error, "no member tells the addresses of all"),
        };
        let members = answer.body["members"].as_array().map_or(&[][..], Vec::as_slice);
        let addresses = members.iter().filter_map(|member| member["grpc"].as_str());
        let known: BTreeMap<&str, ()> =
            addresses.filter(|address| !address.is_empty()).map(|address| (address, ())).collect();
        self.found = known.into_keys().take(MEMBERS_MAX).map(str::to_owned).collect();
        self.channels
            .retain(|member, _| self.found.contains(member) || self.direct.contains(member));
    }
}

fn rest(urls: &[String], api_key: Option<&str>) -> Result<Client, String> {
    let options = client::Options {
        urls: urls.to_vec(),
        deadline: DISCOVER_TIMEOUT,
        try_timeout: Duration::from_secs(2),
        api_key: api_key.map(str::to_owned),
        ..client::Options::default()
    };
    Client::new(&options).map_err(|error| error.to_string())
}

/// What an agent tells about itself. `instance` tells one run of the program from another under the
/// same name.
pub(super) fn registration(
    agent_id: &str,
    agent_type: &str,
    endpoint: &str,
    capabilities: &[String],
    max_concurrent_tasks: usize,
) -> AgentRegistration {
    AgentRegistration {
        agent_id: agent_id.to_owned(),
        agent_type: agent_type.to_owned(),
        capabilities: capabilities.to_vec(),
        endpoint: endpoint.to_owned(),
        max_concurrent_tasks: i32::try_from(max_concurrent_tasks).unwrap_or(i32::MAX),
        metadata: BTreeMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("instance".to_owned(), format!("run-{:016x}", clock::random())),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(join: &[&str]) -> Result<Members, String> {
        let join: Vec<String> = join.iter().map(|&address| address.to_owned()).collect();
        Members::new(&join, Some("key"))
    }

    #[test]
    fn addresses_are_sorted_by_kind() {
        let members = members(&["a:1", "http://b:9000", " grpc://c:2 ", ""]).unwrap();
        assert_eq!(members.in_turn(), ["a:1", "c:2"]);
        assert_eq!(members.rest_urls, ["http://b:9000"]);
        for join in [&[][..], &["https://a"], &["a b"]] {
            assert!(self::members(join).is_err(), "{join:?}");
        }
        assert!(Members::new(&["a:1".to_owned()], Some("a\nb")).is_err());
    }

    #[tokio::test]
    async fn who_answered_last_is_asked_first() {
        let mut members = members(&["a:1", "b:2"]).unwrap();
        members.preferred = Some("b:2".to_owned());
        members.found = vec!["c:3".to_owned(), "a:1".to_owned()];
        assert_eq!(members.in_turn(), ["b:2", "a:1", "c:3"]);
    }

    #[tokio::test]
    async fn the_own_address_is_that_on_the_way_to_a_member() {
        let members = members(&["127.0.0.1:7"]).unwrap();
        assert_eq!(members.own_address().await, Some([127, 0, 0, 1].into()));
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let mut members = members(&["127.0.0.1:1"]).unwrap();
        let registration = registration("a", "synthesis", "a:1", &[], 1);
        let failure = members.register(&registration).await.unwrap_err();
        assert!(matches!(failure, NotRegistered::Unreachable(_)), "{failure:?}");
    }
}
