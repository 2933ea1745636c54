//! Frames: what goes over a peer connection, as bytes.
//!
//! A frame is its length (4 bytes, big-endian), a format byte, a correlation number (8 bytes,
//! little-endian), the length of the head (4 bytes, little-endian), the head (bincode), and an
//! attachment of raw bytes. Bulk travels in the attachment, so that log payloads and snapshot
//! chunks are never encoded again and are read without a copy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::LengthDelimitedCodec;

/// The only format so far.
const FORMAT: u8 = 1;
/// Format byte, correlation number, length of the head.
const HEADER_BYTES: usize = 1 + 8 + 4;
/// The largest frame taken or sent, in bytes: a full append of large commands fits.
pub(crate) const FRAME_BYTES_MAX: usize = 96 << 20;

/// Why bytes are not a frame, or a message not sendable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a peer frame of format {0} is not known to this version")]
    Format(u8),
    #[error("a peer frame ended early")]
    Short,
    #[error("a peer frame of {0} bytes is over the bound of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("cannot decode a peer message: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    #[error("cannot encode a peer message: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

/// A frame as it came, its head not yet decoded.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Ties an answer to its request.
    pub correlation: u64,
    head: Bytes,
    /// Raw bytes that belong to the head.
    pub attachment: Bytes,
}

/// Splits the byte stream into frames.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_length(4)
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// One frame with its length in front, ready to be written.
pub(crate) fn encode<T: Serialize>(
    correlation: u64,
    head: &T,
    attachment: &[Bytes],
) -> Result<Bytes, FrameError> {
    let head = encode_body(head)?;
    let bulk: usize = attachment.iter().map(Bytes::len).sum();
    let body = HEADER_BYTES + head.len() + bulk;
    if body > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(body));
    }
    let mut out = BytesMut::with_capacity(4 + body);
    out.put_u32(u32::try_from(body).expect("a frame is bounded far below 4 GiB"));
    out.put_u8(FORMAT);
    out.put_u64_le(correlation);
    out.put_u32_le(u32::try_from(head.len()).expect("a head is shorter than its frame"));
    out.put_slice(&head);
    for chunk in attachment {
        out.put_slice(chunk);
    }
    Ok(out.freeze())
}

/// Takes a frame apart; `bytes` come without the length in front.
pub(crate) fn split(mut bytes: Bytes) -> Result<Frame, FrameError> {
    if bytes.len() < HEADER_BYTES {
        return Err(FrameError::Short);
    }
    let format = bytes.get_u8();
    if format != FORMAT {
        return Err(FrameError::Format(format));
    }
    let correlation = bytes.get_u64_le();
    let head_len = bytes.get_u32_le() as usize;
    if bytes.len() < head_len {
        return Err(FrameError::Short);
    }
    let head = bytes.split_to(head_len);
    Ok(Frame { correlation, head, attachment: bytes })
}

impl Frame {
    /// Decodes the head.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        decode_body(&self.head)
    }
}

/// bincode as the peer protocol uses it.
pub(crate) fn encode_body<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    Ok(bincode::serde::encode_to_vec(value, bincode::config::standard())?)
}

/// The reverse of [`encode_body`].
pub(crate) fn decode_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, bincode::config::standard())?;
    if read != bytes.len() {
        return Err(FrameError::Short);
    }
    Ok(value)
}

/// Cuts an attachment into pieces of the given lengths.
pub(crate) fn slices(mut attachment: Bytes, lens: &[u32]) -> Result<Vec<Bytes>, FrameError> {
    let mut pieces = Vec::with_capacity(lens.len());
    for len in lens {
        let len = *len as usize;
        if attachment.len() < len {
            return Err(FrameError::Short);
        }
        pieces.push(attachment.split_to(len));
    }
    if attachment.is_empty() { Ok(pieces) } else { Err(FrameError::Short) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_length(framed: &Bytes) -> Bytes {
        framed.slice(4..)
    }

    #[test]
    fn a_frame_survives_the_wire() {
        let chunks = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")];
        let framed = encode(7, &("head", 42_u64), &chunks).unwrap();
        assert_eq!(framed.len(), 4 + u32::from_be_bytes(framed[..4].try_into().unwrap()) as usize);
        let frame = split(without_length(&framed)).unwrap();
        assert_eq!(frame.correlation, 7);
        assert_eq!(frame.decode::<(String, u64)>().unwrap(), ("head".to_owned(), 42));
        assert_eq!(slices(frame.attachment, &[2, 0, 3]).unwrap(), chunks);
    }

    #[test]
    fn damaged_frames_are_errors() {
        let framed = encode(7, &"head", &[]).unwrap();
        let body = without_length(&framed);
        for cut in 0..body.len() {
            let frame = split(body.slice(..cut));
            assert!(frame.is_err() || frame.unwrap().decode::<String>().is_err(), "{cut}");
        }
        let mut other = body.to_vec();
        other[0] = 9;
        assert!(matches!(split(Bytes::from(other)), Err(FrameError::Format(9))));
        assert!(slices(Bytes::from_static(b"abc"), &[2]).is_err());
        assert!(slices(Bytes::from_static(b"abc"), &[2, 2]).is_err());
    }

    #[test]
    fn a_frame_over_the_bound_is_not_sent() {
        let big = Bytes::from(vec![0; FRAME_BYTES_MAX]);
        assert!(matches!(encode(1, &(), &[big]), Err(FrameError::TooLong(_))));
    }
}
