//! Where the end of a task is told, as a submission names it (contract 6, row 12).

use crate::api::object::Object;
use crate::model::AllowedHosts;
use crate::outward::{self, TargetError};

const URL_BYTES_MAX: usize = 2048;

/// The code of those that the operator's list keeps from being called.
pub(super) const HOST_NOT_ALLOWED: &str = "HOST_NOT_ALLOWED";

/// Why a `callback_url` is refused: the code, and the text for the client.
pub(super) type Refused = (&'static str, String);

/// Reads `callback_url`. Whether its host may be called is looked at again when it is called.
pub(super) fn url(body: &Object<'_>, hosts: &AllowedHosts) -> Result<Option<String>, Refused> {
    let invalid = |error: String| ("INVALID_TASK", error);
    let text = body.text("callback_url").map_err(|error| invalid(error.to_string()))?;
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        let bound = URL_BYTES_MAX;
        invalid(format!("callback_url must be an http or https URL of at most {bound} bytes"))
    };
    if text.len() > URL_BYTES_MAX {
        return Err(wrong());
    }
    match outward::target(&text, hosts) {
        Ok(_) => Ok(Some(text.into_owned())),
        Err(TargetError::NoUrl(_)) => Err(wrong()),
        Err(error @ TargetError::NotAllowed(_)) => {
            Err((HOST_NOT_ALLOWED, format!("callback_url: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_go_where_the_list_lets_them() {
        let list = AllowedHosts::parse(["hooks.example", "10.0.0.0/8"].into_iter()).unwrap();
        let read = |text: &str, hosts: &AllowedHosts| {
            let body = format!("{{\"callback_url\":\"{text}\"}}");
            url(&Object::parse(body.as_bytes()).unwrap(), hosts)
        };
        for text in ["https://hooks.example/x", "http://10.1.1.1/", "http://named.example/"] {
            assert_eq!(read(text, &list).unwrap().as_deref(), Some(text));
        }
        let (code, error) = read("http://169.254.169.254/", &list).unwrap_err();
        assert_eq!(code, HOST_NOT_ALLOWED);
        assert!(error.starts_with("callback_url: the host 169.254.169.254 is not"), "{error}");
        let open = AllowedHosts::default();
        assert!(read("http://169.254.169.254/", &open).is_ok(), "an empty list allows everything");
        for wrong in ["ftp://x", "x", "http://", &format!("http://{}", "x".repeat(2048))] {
            assert_eq!(read(wrong, &open).unwrap_err().0, "INVALID_TASK", "{wrong}");
        }
        assert_eq!(read("", &list), Ok(None));
    }
}
