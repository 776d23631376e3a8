//! The body of a response with images, which is encoded while it is sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// How much of a file is encoded at once, in bytes. A multiple of 3, so that no padding is needed between the pieces.
const PIECE: usize = 48 << 10;

/// A part of the body.
#[derive(Debug)]
pub(super) enum BodyPart {
    /// Text that is sent as it is.
    Text(String),
    /// A file that is sent in base64.
    Base64(Bytes),
}

/// Text and files in base64. The permits are released once all of it is sent, or the client is gone.
#[derive(Debug)]
pub(super) struct ImagesBody {
    parts: VecDeque<BodyPart>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl ImagesBody {
    pub(super) fn new(parts: Vec<BodyPart>, permits: Vec<OwnedSemaphorePermit>) -> Self {
        Self { parts: parts.into(), _permits: permits }
    }
}

impl Body for ImagesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.parts.pop_front() {
            None => return Poll::Ready(None),
            Some(BodyPart::Text(text)) => Bytes::from(text),
            Some(BodyPart::Base64(mut file)) => {
                let piece = file.split_to(PIECE.min(file.len()));
                if !file.is_empty() {
                    self.parts.push_front(BodyPart::Base64(file));
                }
                Bytes::from(BASE64.encode(piece))
            }
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let sizes = self.parts.iter().map(|part| match part {
            BodyPart::Text(text) => text.len(),
            BodyPart::Base64(file) => file.len().div_ceil(3) * 4,
        });
        SizeHint::with_exact(sizes.sum::<usize>() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn files_of_all_lengths_are_sent_in_one_piece_of_base64() {
        for length in [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let file: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let parts = vec![
                BodyPart::Text("<".to_owned()),
                BodyPart::Base64(file.clone().into()),
                BodyPart::Text(">".to_owned()),
            ];
            let body = ImagesBody::new(parts, Vec::new());
            let announced = body.size_hint().exact();
            let sent = body.collect().await.unwrap().to_bytes();
            assert_eq!(sent, format!("<{}>", BASE64.encode(file)));
            assert_eq!(announced, Some(sent.len() as u64));
        }
    }
}
