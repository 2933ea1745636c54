//! Which hosts may be called because somebody outside named them: in a callback, a webhook, a call of
//! an agent, an input. Nodes are not among them: they are the fleet.

use core::net::IpAddr;

use super::Networks;

/// The longest list.
const PATTERNS_MAX: usize = 256;
/// The longest name that DNS has.
const NAME_BYTES_MAX: usize = 253;

/// What the cluster may reach on behalf of its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// `security.outward.allowed_hosts`.
    pub hosts: AllowedHosts,
    /// `agents.fetch_inputs`: whether built-in agents fetch inputs that only name a URL.
    pub fetch_inputs: bool,
}

/// Names and address ranges. An empty list allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    names: Vec<Pattern>,
    networks: Networks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// This name.
    Name(String),
    /// Every name that ends in this, which begins with a dot.
    Below(String),
}

impl AllowedHosts {
    /// Reads a list of names (`hooks.slack.com`), all names of a domain (`*.example.com`, without
    /// `example.com` itself), addresses and ranges (`10.0.0.0/8`).
    ///
    /// # Errors
    /// The first text that is none of these, or a list that is too long.
    pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let (mut names, mut ranges) = (Vec::new(), Vec::new());
        for (place, text) in texts.map(str::trim).enumerate() {
            if place == PATTERNS_MAX {
                return Err(format!("at most {PATTERNS_MAX} hosts"));
            }
            if Networks::parse(std::iter::once(text)).is_ok() {
                ranges.push(text);
            } else {
                names.push(Pattern::parse(text)?);
            }
        }
        Ok(Self { names, networks: Networks::parse(ranges.into_iter())? })
    }

    /// Whether everything is allowed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.names.is_empty() && self.networks.is_empty()
    }

    /// Whether ranges are on the list, so that the address of a name may be what allows it.
    #[must_use]
    pub fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Whether a host of that name may be called, wherever it is.
    #[must_use]
    pub fn admits_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.is_open() || self.names.iter().any(|pattern| pattern.matches(&name))
    }

    /// Whether that address may be called, whatever its name.
    #[must_use]
    pub fn admits_address(&self, address: IpAddr) -> bool {
        self.is_open() || self.networks.contains(address)
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        let (below, rest) = match name.strip_prefix('*') {
            Some(rest) => (true, rest.strip_prefix('.').unwrap_or_default()),
            None => (false, name.as_str()),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let whole = rest.split('.').all(|label| !label.is_empty());
        if !whole || !rest.chars().all(is_name) || rest.len() > NAME_BYTES_MAX {
            return Err(format!(
                "`{text}` is no host name, no *.domain and no range like 10.0.0.0/8"
            ));
        }
        Ok(if below { Self::Below(format!(".{rest}")) } else { Self::Name(rest.to_owned()) })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[&str]) -> AllowedHosts {
        AllowedHosts::parse(list.iter().copied()).unwrap()
    }

    #[test]
    fn an_empty_list_allows_everything() {
        let all = AllowedHosts::default();
        assert!(all.is_open() && !all.has_networks());
        assert!(all.admits_name("x") && all.admits_address("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn names_domains_and_ranges_are_told_apart() {
        let list = hosts(&["Hooks.Slack.com", "*.example.com", "10.0.0.0/8", "::1"]);
        for (name, allowed) in [
            ("hooks.slack.com", true),
            ("HOOKS.slack.com.", true),
            ("slack.com", false),
            ("evil-hooks.slack.com", false),
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("badexample.com", false),
            ("a.example.com.evil.org", false),
            ("", false),
        ] {
            assert_eq!(list.admits_name(name), allowed, "{name}");
        }
        for (address, allowed) in
            [("10.9.8.7", true), ("11.0.0.1", false), ("::1", true), ("::ffff:10.0.0.1", true)]
        {
            assert_eq!(list.admits_address(address.parse().unwrap()), allowed, "{address}");
        }
        assert!(list.has_networks() && !hosts(&["a"]).has_networks());
    }

    #[test]
    fn nonsense_is_named() {
        for wrong in
            ["", "*", "*.", "a..b", "a:80", "http://a", "a b", "b\u{fc}cher.de", "1.2.3.4/40"]
        {
            let error = AllowedHosts::parse(std::iter::once(wrong)).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
        let many = vec!["a"; PATTERNS_MAX + 1];
        assert!(AllowedHosts::parse(many.into_iter()).is_err());
    }
}
