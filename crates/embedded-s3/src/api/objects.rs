//! Operations on single objects.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::{Answer, Api, etag, length, ok};
use crate::digest::{Algorithm, Expected, Sums};
use crate::ingest;
use crate::record::{Attributes, Meta};
use crate::store::{Condition, internal, now_ms, timestamp};

/// Bytes of a GET in memory at once.
const READ_CHUNK: usize = 256 * 1024;

/// The headers stored with an object, out of any input that has them.
macro_rules! attributes {
    ($input:expr) => {
        Attributes {
            content_type: $input.content_type.take(),
            content_encoding: $input.content_encoding.take(),
            content_disposition: $input.content_disposition.take(),
            content_language: $input.content_language.take(),
            cache_control: $input.cache_control.take(),
            website_redirect: $input.website_redirect_location.take(),
            user: $input
                .metadata
                .take()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }
    };
}
pub(super) use attributes;

/// What a request says about its body, out of any input that has a body.
macro_rules! expected {
    ($req:expr) => {{
        let mut expected = Expected {
            md5: $req.input.content_md5.take(),
            sums: Sums {
                crc32: $req.input.checksum_crc32.take(),
                crc32c: $req.input.checksum_crc32c.take(),
                crc64nvme: $req.input.checksum_crc64nvme.take(),
                sha1: $req.input.checksum_sha1.take(),
                sha256: $req.input.checksum_sha256.take(),
                composite: false,
            },
            named: match &$req.input.checksum_algorithm {
                Some(name) => Some(Algorithm::parse(name.as_str())?),
                None => None,
            },
            ..Expected::default()
        };
        expected.read_headers(&$req.headers);
        expected
    }};
}
pub(super) use expected;

/// What GET and HEAD both tell of an object, in the answer of either.
macro_rules! described {
    ($output:ident, $meta:ident, $sums:ident, $len:ident, $content_range:ident) => {
        $output {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length($len)),
            content_range: $content_range,
            e_tag: Some(etag(&$meta.etag)),
            last_modified: Some(timestamp($meta.modified_ms)),
            content_type: Some(content_type($meta.attributes.content_type)),
            content_encoding: $meta.attributes.content_encoding,
            content_disposition: $meta.attributes.content_disposition,
            content_language: $meta.attributes.content_language,
            cache_control: $meta.attributes.cache_control,
            website_redirect_location: $meta.attributes.website_redirect,
            metadata: Some($meta.attributes.user.into_iter().collect()),
            checksum_type: $sums.kind(),
            checksum_crc32: $sums.crc32,
            checksum_crc32c: $sums.crc32c,
            checksum_crc64nvme: $sums.crc64nvme,
            checksum_sha1: $sums.sha1,
            checksum_sha256: $sums.sha256,
            ..Default::default()
        }
    };
}

impl Api {
    pub(super) async fn put(&self, mut req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let condition = Condition {
            if_match: req.input.if_match.take(),
            if_none_match: req.input.if_none_match.take(),
        };
        // Before the body, to spare it; again when it counts.
        condition.check(&bucket, &req.input.key)?;
        let expected = expected!(req);
        let body = req.input.body.take();
        let staged =
            ingest::receive(&self.store, body, expected, req.trailing_headers.as_ref()).await?;
        let meta = Meta {
            attributes: attributes!(req.input),
            key: req.input.key,
            size: staged.size,
            etag: hex::encode(staged.found.md5),
            modified_ms: now_ms(),
            sums: staged.found.sums,
            upload_id: None,
        };
        let meta = self
            .blocking(move |store| {
                store.commit(&bucket, staged.file, &meta, &condition)?;
                Ok(meta)
            })
            .await?;
        ok(PutObjectOutput {
            e_tag: Some(etag(&meta.etag)),
            checksum_type: meta.sums.kind(),
            checksum_crc32: meta.sums.crc32,
            checksum_crc32c: meta.sums.crc32c,
            checksum_crc64nvme: meta.sums.crc64nvme,
            checksum_sha1: meta.sums.sha1,
            checksum_sha256: meta.sums.sha256,
            ..Default::default()
        })
    }

    pub(super) async fn get(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let input = req.input;
        whole_only(input.part_number)?;
        let (mut file, meta) = self.open(input.bucket, input.key).await?;
        ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(&meta)?;
        let (range, content_range) = resolve(input.range, meta.size)?;
        let len = range.end - range.start;
        if range.start > 0 {
            file.seek(io::SeekFrom::Start(range.start))
                .map_err(internal)?;
        }
        let body = tokio::fs::File::from_std(file).take(len);
        let body = ReaderStream::with_capacity(body, READ_CHUNK);
        // S3 tells the checksums, which are of the whole, with the whole only.
        let sums = if len == meta.size && input.checksum_mode.is_some() {
            meta.sums
        } else {
            Sums::default()
        };
        ok(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body)),
            ..described!(GetObjectOutput, meta, sums, len, content_range)
        })
    }

    pub(super) async fn head(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let input = req.input;
        whole_only(input.part_number)?;
        let (_, meta) = self.open(input.bucket, input.key).await?;
        ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(&meta)?;
        let (range, content_range) = resolve(input.range, meta.size)?;
        let sums = if input.checksum_mode.is_some() {
            meta.sums
        } else {
            Sums::default()
        };
        let len = range.end - range.start;
        ok(described!(HeadObjectOutput, meta, sums, len, content_range))
    }

    pub(super) async fn copy(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let mut input = req.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "only bucket/key can be copied"));
        };
        let target = self.bucket(&input.bucket)?;
        let (source, mut meta) = self.open(bucket.to_string(), key.to_string()).await?;
        ReadCondition {
            if_match: input.copy_source_if_match.take(),
            if_none_match: input.copy_source_if_none_match.take(),
            if_modified_since: input.copy_source_if_modified_since.take(),
            if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        }
        .check(&meta)
        .map_err(|_| s3_error!(PreconditionFailed))?;
        if let Some(directive) = &input.metadata_directive
            && directive.as_str() == MetadataDirective::REPLACE
        {
            meta.attributes = attributes!(input);
        }
        meta.key = input.key;
        meta.modified_ms = now_ms();
        meta.upload_id = None;
        let meta = self
            .blocking(move |store| {
                let mut file = store.layout.temp_file().map_err(internal)?;
                let copied = io::copy(&mut source.take(meta.size), file.as_file_mut());
                if copied.map_err(internal)? != meta.size {
                    return Err(s3_error!(InternalError, "the source is shorter than known"));
                }
                store.commit(&target, file, &meta, &Condition::default())?;
                Ok(meta)
            })
            .await?;
        ok(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(etag(&meta.etag)),
                last_modified: Some(timestamp(meta.modified_ms)),
                checksum_type: meta.sums.kind(),
                checksum_crc32: meta.sums.crc32,
                checksum_crc32c: meta.sums.crc32c,
                checksum_crc64nvme: meta.sums.crc64nvme,
                checksum_sha1: meta.sums.sha1,
                checksum_sha256: meta.sums.sha256,
            }),
            ..Default::default()
        })
    }

    pub(super) async fn delete_many(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let Delete { objects, quiet } = req.input.delete;
        if objects.len() > 1000 {
            return Err(s3_error!(MalformedXML, "more than 1000 keys"));
        }
        let (deleted, errors) = self
            .blocking(move |store| {
                let (mut deleted, mut errors) = (Vec::new(), Vec::new());
                for object in objects {
                    match store.delete_object(&bucket, &object.key) {
                        Ok(()) => deleted.push(DeletedObject {
                            key: Some(object.key),
                            ..Default::default()
                        }),
                        Err(error) => errors.push(s3s::dto::Error {
                            key: Some(object.key),
                            code: Some(error.code().as_str().to_owned()),
                            message: error.message().map(str::to_owned),
                            version_id: None,
                        }),
                    }
                }
                Ok((deleted, errors))
            })
            .await?;
        ok(DeleteObjectsOutput {
            deleted: (!quiet.unwrap_or(false)).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..Default::default()
        })
    }

    async fn open(&self, bucket: String, key: String) -> S3Result<(File, Meta)> {
        let bucket = self.bucket(&bucket)?;
        self.blocking(move |store| store.open_object(&bucket, &key))
            .await
    }
}

fn content_type(stored: Option<String>) -> String {
    stored.unwrap_or_else(|| "binary/octet-stream".to_owned())
}

fn whole_only(part: Option<i32>) -> S3Result<()> {
    match part {
        None => Ok(()),
        Some(_) => Err(s3_error!(
            NotImplemented,
            "reading by part number is not implemented"
        )),
    }
}

fn resolve(range: Option<Range>, size: u64) -> S3Result<(std::ops::Range<u64>, Option<String>)> {
    match range {
        None => Ok((0..size, None)),
        Some(range) => {
            let found = range.check(size)?;
            let text = format!(
                "bytes {}-{}/{size}",
                found.start,
                found.end.saturating_sub(1)
            );
            Ok((found, Some(text)))
        }
    }
}

/// The conditions of a read, in S3's precedence.
struct ReadCondition {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
}

impl ReadCondition {
    fn check(self, meta: &Meta) -> S3Result<()> {
        let matches = |condition: &ETagCondition| {
            condition
                .as_etag()
                .is_none_or(|wanted| wanted.value() == meta.etag)
        };
        // Dates in headers have whole seconds.
        let modified = timestamp(meta.modified_ms / 1000 * 1000);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition) => {
                return Err(s3_error!(PreconditionFailed));
            }
            (None, Some(since)) if modified > *since => {
                return Err(s3_error!(PreconditionFailed));
            }
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if matches(condition) => Err(s3_error!(NotModified)),
            (None, Some(since)) if modified <= *since => Err(s3_error!(NotModified)),
            _ => Ok(()),
        }
    }
}
