//! The S3 operations: s3s hands in verified requests, the modules here answer them from the store.
//!
//! Everything that changes the disk runs to its end on a blocking thread, whether or not the client waits.

mod lists;
mod multipart;
mod objects;

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::bucket::Bucket;
use crate::store::{Store, internal, timestamp};

/// The S3 trait on a store.
#[derive(Debug)]
pub(crate) struct Api {
    store: Arc<Store>,
}

impl Api {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        self.store.bucket(name)
    }

    /// Runs disk work to its end off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(internal)?
    }
}

type Answer<T> = S3Result<S3Response<T>>;

fn ok<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

fn length(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[async_trait::async_trait]
impl S3 for Api {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        let name = req.input.bucket;
        let location = format!("/{name}");
        let new = self
            .blocking(move |store| store.create_bucket(&name).map_err(internal))
            .await?;
        if !new {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        ok(CreateBucketOutput {
            location: Some(location),
        })
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.bucket(&req.input.bucket)?;
        ok(HeadBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.bucket(&req.input.bucket)?;
        ok(GetBucketLocationOutput::default())
    }

    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let buckets = self.store.buckets();
        let buckets = buckets.iter().filter(|b| b.name.starts_with(&prefix));
        ok(ListBucketsOutput {
            buckets: Some(
                buckets
                    .map(|bucket| s3s::dto::Bucket {
                        name: Some(bucket.name.clone()),
                        creation_date: Some(timestamp(bucket.created_ms)),
                        ..Default::default()
                    })
                    .collect(),
            ),
            prefix: req.input.prefix,
            ..Default::default()
        })
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        let name = req.input.bucket;
        self.blocking(move |store| store.delete_bucket(&name))
            .await?;
        ok(DeleteBucketOutput::default())
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        self.put(req).await
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.get(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.head(req).await
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        self.copy(req).await
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let key = req.input.key;
        self.blocking(move |store| store.delete_object(&bucket, &key))
            .await?;
        ok(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        self.delete_many(req).await
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        self.list_v1(req.input)
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        self.list_v2(req.input)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        self.list_uploads(req.input)
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.list_parts_of(req.input)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.create_multipart(req.input).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.put_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        self.complete_multipart(req.input).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket)?;
        let upload = self.store.upload(&bucket, &input.key, &input.upload_id)?;
        self.blocking(move |store| store.abort_upload(&bucket, &upload))
            .await?;
        ok(AbortMultipartUploadOutput::default())
    }
}
