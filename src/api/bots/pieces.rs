//! Bodies that are made while they are sent: 50,000 ids are 2 MB, and a thousand assignments with
//! their data may be much more. What is sent is fixed before it begins, by one look at the state; only
//! payloads, which never change, are read on the way.

use std::iter;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;

use crate::api::error::ApiError;
use crate::storage::StorageError;

/// A piece is sent when it has this many bytes: some thousand ids.
const PIECE_BYTES: usize = 40 * 1024;

/// JSON text around a list.
#[derive(Debug)]
pub(super) struct Frame {
    /// What stands in front of the items, up to `[`.
    pub(super) head: Vec<u8>,
    /// What stands behind them, from `]` on.
    pub(super) tail: &'static str,
}

impl Frame {
    /// An object, given as JSON text, with a further field `key` that holds the list.
    pub(super) fn of_object(mut object: Vec<u8>, key: &str) -> Self {
        if object.last() == Some(&b'}') {
            object.pop();
        }
        let comma = if object.len() > 1 { "," } else { "" };
        object.extend_from_slice(format!("{comma}\"{key}\":[").as_bytes());
        Self { head: object, tail: "]}" }
    }

    /// JSON text that ends with an empty list and `tail`, around the items of that list.
    pub(super) fn around_last_list(mut text: Vec<u8>, tail: &'static str) -> Self {
        text.truncate(text.len().saturating_sub(tail.len()));
        Self { head: text, tail }
    }
}

struct Pieces<I, W> {
    head: Option<Vec<u8>>,
    items: I,
    write: W,
    tail: Option<&'static str>,
    /// Something stands in front of the next item.
    after_item: bool,
}

impl<T, I, W> Iterator for Pieces<I, W>
where
    I: Iterator<Item = T>,
    W: FnMut(&mut Vec<u8>, T) -> Result<(), StorageError>,
{
    type Item = Result<Bytes, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.tail?;
        let mut piece = self.head.take().unwrap_or_default();
        piece.reserve(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            let Some(item) = self.items.next() else {
                piece.extend_from_slice(self.tail.take()?.as_bytes());
                break;
            };
            if self.after_item {
                piece.push(b',');
            }
            self.after_item = true;
            if let Err(error) = (self.write)(&mut piece, item) {
                self.tail = None;
                return Some(Err(error));
            }
        }
        Some(Ok(Bytes::from(piece)))
    }
}

/// A payload that cannot be read.
pub(super) fn unreadable(error: &StorageError) -> ApiError {
    tracing::error!(%error, "a payload cannot be read");
    let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    ApiError::new(status, "STORAGE", "a payload cannot be read")
}

/// The body of a list that is framed. What fits into one piece is made at once; of more, what is
/// sent is all that is held.
///
/// # Errors
/// When a payload of the first piece cannot be read. Later the answer breaks off, which clients see.
pub(super) fn body<T>(
    frame: Frame,
    items: impl Iterator<Item = T> + Send + 'static,
    write: impl FnMut(&mut Vec<u8>, T) -> Result<(), StorageError> + Send + 'static,
) -> Result<Body, ApiError> {
    let Frame { head, tail } = frame;
    let mut pieces = Pieces { head: Some(head), items, write, tail: Some(tail), after_item: false };
    let first = pieces.next().unwrap_or_else(|| Ok(Bytes::new()));
    let first = first.map_err(|error| unreadable(&error))?;
    if pieces.tail.is_none() {
        return Ok(Body::from(first));
    }
    let rest = pieces.map(|piece| {
        piece.map_err(|error| {
            tracing::error!(%error, "an answer breaks off: a payload cannot be read");
            std::io::Error::other(error)
        })
    });
    Ok(Body::from_stream(stream::iter(iter::once(Ok(first)).chain(rest))))
}

#[cfg(test)]
mod tests {
    use axum::body::{HttpBody as _, to_bytes};
    use futures::StreamExt as _;

    use super::*;

    fn numbers(count: u64) -> Body {
        let frame = Frame::of_object(b"{\"a\":1}".to_vec(), "list");
        body(frame, 0..count, |to, number| {
            to.extend_from_slice(number.to_string().as_bytes());
            Ok(())
        })
        .unwrap()
    }

    #[tokio::test]
    async fn lists_of_any_length_are_whole() {
        for count in [0, 1, 2, 9_000, 100_000] {
            let text = to_bytes(numbers(count), usize::MAX).await.unwrap();
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let wanted: Vec<u64> = (0..count).collect();
            assert_eq!(value, serde_json::json!({"a": 1, "list": wanted}));
        }
    }

    #[tokio::test]
    async fn long_lists_come_in_pieces_and_short_ones_at_once() {
        assert!(numbers(10).size_hint().exact().is_some());
        let pieces: Vec<_> = numbers(100_000).into_data_stream().collect().await;
        assert!(pieces.len() > 10);
        assert!(pieces.into_iter().all(|piece| piece.unwrap().len() < 2 * PIECE_BYTES));
    }

    #[tokio::test]
    async fn a_payload_that_cannot_be_read_breaks_the_answer_off() {
        let broken = |at: u64| {
            let frame = Frame::of_object(b"{}".to_vec(), "list");
            body(frame, 0..100_000u64, move |to, number| {
                to.extend_from_slice(b"0123456789");
                if number == at { Err(StorageError::Installing) } else { Ok(()) }
            })
        };
        assert_eq!(broken(0).unwrap_err().code(), "STORAGE");
        let late = to_bytes(broken(50_000).unwrap(), usize::MAX).await;
        assert!(late.is_err());
    }
}
