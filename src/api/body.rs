//! Reading request bodies: bounded, and JSON whatever the `Content-Type` (contract 1.2).

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use super::App;
use super::error::ApiError;

/// A whole request body, at most as long as the options say.
#[derive(Debug)]
pub(super) struct RequestBody(pub(super) Bytes);

impl FromRequest<App> for RequestBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, Self::Rejection> {
        let max = app.options().body_bytes_max;
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > max as u64) {
            return Err(too_large(max));
        }
        read(request.into_body(), max).await.map(Self)
    }
}

pub(super) async fn read(body: Body, max: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::bad_request("BODY_INCOMPLETE", "the body broke off")
                .with_detail(error.to_string())
        })?;
        if first.len().max(whole.len()) + chunk.len() > max {
            return Err(too_large(max));
        }
        // Nearly every body comes in one piece, which is used as it is.
        if first.is_empty() && whole.is_empty() {
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

fn too_large(max: usize) -> ApiError {
    let text = format!("the body is larger than {max} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_in_pieces_are_joined_and_bounded() {
        let pieces = |pieces: &[&'static str]| {
            let pieces: Vec<Result<_, std::io::Error>> =
                pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
            Body::from_stream(futures::stream::iter(pieces))
        };
        assert_eq!(read(pieces(&["ab", "cd", "e"]), 5).await.unwrap(), "abcde");
        assert_eq!(read(pieces(&["abc"]), 3).await.unwrap(), "abc");
        assert_eq!(read(pieces(&[]), 0).await.unwrap(), "");
        assert_eq!(read(pieces(&["ab", "cd"]), 3).await.unwrap_err().code(), "BODY_TOO_LARGE");
        assert_eq!(read(pieces(&["abcd"]), 3).await.unwrap_err().code(), "BODY_TOO_LARGE");
    }
}
