//! Bodies from the network into verified temporary files, with bounded memory.
//!
//! Reading happens in the request's task, hashing and writing on a blocking thread; a few chunks may wait
//! between them. A request that is dropped halfway drops the channel, and the file goes with it.

use bytes::Bytes;
use futures::StreamExt as _;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};
use std::io::{self, BufWriter, Write as _};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use crate::digest::{Expected, Found, Hasher};
use crate::store::{Store, internal};

/// Chunks that may wait to be written (each at most what hyper reads at once, some 400 KiB).
const WAITING: usize = 8;
const WRITE_BUFFER: usize = 256 * 1024;

/// A body whose digests were verified; not yet an object.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) file: NamedTempFile,
    pub(crate) size: u64,
    pub(crate) found: Found,
}

enum Feed {
    Data(Bytes),
    End,
}

/// Receives a body and verifies it.
pub(crate) async fn receive(
    store: &Store,
    body: Option<StreamingBlob>,
    expected: Expected,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<Staged> {
    let file = store.layout.temp_file().map_err(internal)?;
    let hasher = expected.hasher();
    let (feed, chunks) = mpsc::channel(WAITING);
    let writer = tokio::task::spawn_blocking(move || write(file, hasher, chunks));
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| body_error(&*e))?;
            if feed.send(Feed::Data(chunk)).await.is_err() {
                break; // The writer failed and says why below.
            }
        }
    }
    let _ = feed.send(Feed::End).await;
    let staged = writer.await.map_err(internal)?.map_err(internal)?;
    expected.verify(&staged.found, staged.size, trailers)?;
    Ok(staged)
}

fn write(
    file: NamedTempFile,
    mut hasher: Hasher,
    mut chunks: mpsc::Receiver<Feed>,
) -> io::Result<Staged> {
    let mut out = BufWriter::with_capacity(WRITE_BUFFER, file);
    let mut size = 0;
    loop {
        match chunks.blocking_recv() {
            Some(Feed::Data(data)) => {
                hasher.update(&data);
                out.write_all(&data)?;
                size += data.len() as u64;
            }
            Some(Feed::End) => break,
            None => return Err(io::Error::other("the request was given up")),
        }
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Staged {
        file,
        size,
        found: hasher.finish(),
    })
}

/// s3s reports what is wrong with a body only as text.
fn body_error(error: &(dyn std::error::Error + Send + Sync)) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "the x-amz-content-sha256 given did not match the data received",
        )
        .with_bad_request()
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "a chunk's signature does not match")
    } else {
        s3_error!(IncompleteBody, "the body broke off: {text}")
    }
}

trait BadRequest {
    fn with_bad_request(self) -> Self;
}

impl BadRequest for S3Error {
    fn with_bad_request(mut self) -> Self {
        self.set_status_code(hyper::StatusCode::BAD_REQUEST);
        self
    }
}
