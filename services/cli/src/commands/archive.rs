//! `windlass archive`: archives read without starting their workspace.
//!
//! A download counts only when it is whole: it is written beside its target, and takes the target's name
//! after its digest matched and it was synced.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::{self, File};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tonic::Streaming;
use windlass_proto::v1;

use crate::args::{ArchiveCommand, DownloadArgs, Output, VerifyArgs};
use crate::client::{Client, request};
use crate::error::CliError;
use crate::output::progress::Transfer;
use crate::output::{self, json, outln};
use crate::resolve::{self, Scope};
use crate::values::bytes;

/// Runs one of them.
pub async fn run(client: &Client, command: ArchiveCommand, output: Output) -> Result<(), CliError> {
    match command {
        ArchiveCommand::Download(args) => download(client, args, output).await,
        ArchiveCommand::Verify(args) => verify(client, args, output).await,
    }
}

/// The archives of a workspace, newest first.
pub(super) async fn listed(client: &Client, id: &str) -> Result<Vec<v1::ArchiveInfo>, CliError> {
    let message = v1::ListWorkspaceArchivesRequest { id: id.to_owned() };
    let answer = client
        .workspaces()?
        .list_workspace_archives(request(message))
        .await;
    Ok(answer.map_err(client.api_error())?.into_inner().archives)
}

/// The key that is meant: a place in the list, or a key, which may be of an archive not listed any more.
pub(super) fn key_of(
    archives: &[v1::ArchiveInfo],
    wanted: Option<&str>,
) -> Result<String, CliError> {
    let wanted = wanted.unwrap_or("1");
    let Ok(place) = wanted.parse::<usize>() else {
        return Ok(wanted.to_owned());
    };
    let archive = place.checked_sub(1).and_then(|i| archives.get(i));
    let archive = archive.ok_or_else(|| {
        CliError::NotFound(match archives.len() {
            0 => "the workspace has no archive".to_owned(),
            1 => format!("there is no archive {place}: the workspace has one"),
            n => format!("there is no archive {place}: the workspace has {n}"),
        })
    })?;
    Ok(archive.key.clone())
}

async fn download(client: &Client, args: DownloadArgs, output: Output) -> Result<(), CliError> {
    let to_stdout = args.file == Path::new("-");
    if !to_stdout && !args.force && exists(&args.file).await? {
        return Err(CliError::Failed(format!(
            "{} exists: use another name, or --force",
            args.file.display()
        )));
    }
    let id = resolve::workspace(client, &args.id, Scope::Deleted)
        .await?
        .id;
    let key = key_of(&listed(client, &id).await?, args.archive.as_deref())?;
    let message = v1::DownloadArchiveRequest {
        id,
        archive_key: key,
    };
    let answer = client.workspaces()?.download_archive(message).await;
    let stream = answer.map_err(client.api_error())?.into_inner();
    if to_stdout {
        receive(client, stream, &mut tokio::io::stdout()).await?;
        return Ok(());
    }
    let archive = to_file(client, stream, &args.file, args.force).await?;
    match output {
        Output::Json => output::print_json(&json::archive(&archive)),
        Output::Id => outln!("{}", archive.key),
        Output::Table => outln!(
            "{}: {}, sha256 {}",
            args.file.display(),
            bytes(archive.bytes),
            archive.sha256
        ),
    }
    Ok(())
}

async fn exists(path: &Path) -> Result<bool, CliError> {
    match fs::symlink_metadata(path).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(path)(e)),
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> CliError {
    let shown = path.display().to_string();
    move |e| CliError::Failed(format!("{shown}: {e}"))
}

/// Takes an unfinished file away, whatever ends the download.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It is told by its name what it is, should it stay.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn to_file(
    client: &Client,
    stream: Streaming<v1::DownloadArchiveResponse>,
    target: &Path,
    force: bool,
) -> Result<v1::ArchiveInfo, CliError> {
    let name = target
        .file_name()
        .ok_or_else(|| CliError::Usage(format!("{} is no name of a file", target.display())))?;
    let mut partial = name.to_owned();
    partial.push(format!(".{}.part", std::process::id()));
    let partial = target.with_file_name(partial);
    let wrong = failed(&partial);
    let mut options = File::options();
    // A home may hold secrets.
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&partial).await.map_err(&wrong)?;
    let mut unfinished = Unfinished(Some(partial.clone()));
    let archive = tokio::select! {
        received = receive(client, stream, &mut file) => received?,
        _ = tokio::signal::ctrl_c() => return Err(CliError::Failed("interrupted".to_owned())),
    };
    file.sync_all().await.map_err(&wrong)?;
    if force {
        fs::rename(&partial, target).await.map_err(failed(target))?;
        unfinished.0 = None;
    } else {
        // Unlike rename, this replaces nothing that came meanwhile; the other name goes with the guard.
        fs::hard_link(&partial, target)
            .await
            .map_err(failed(target))?;
    }
    Ok(archive)
}

/// Writes the stream, and compares what came with what was announced.
async fn receive<W: AsyncWrite + Unpin>(
    client: &Client,
    mut stream: Streaming<v1::DownloadArchiveResponse>,
    to: &mut W,
) -> Result<v1::ArchiveInfo, CliError> {
    let cannot_write = |e| CliError::Failed(format!("cannot write the archive: {e}"));
    let mut archive = None;
    let mut digest = Sha256::new();
    let mut done = 0;
    let mut shown = Transfer::new("downloading");
    while let Some(message) = stream.message().await.map_err(client.api_error())? {
        if let Some(info) = message.archive {
            archive = Some(info);
        }
        digest.update(&message.data);
        to.write_all(&message.data).await.map_err(cannot_write)?;
        done += message.data.len() as u64;
        shown.show(done, archive.as_ref().map_or(0, |a| a.bytes));
    }
    to.flush().await.map_err(cannot_write)?;
    shown.finish();
    let archive =
        archive.ok_or_else(|| CliError::Failed("the api sent an empty download".to_owned()))?;
    let found = hex::encode(digest.finalize());
    if done != archive.bytes || found != archive.sha256 {
        return Err(CliError::Failed(format!(
            "what came is not the archive: {done} bytes with SHA-256 {found} instead of {} with {}",
            archive.bytes, archive.sha256
        )));
    }
    Ok(archive)
}

async fn verify(client: &Client, args: VerifyArgs, output: Output) -> Result<(), CliError> {
    let id = resolve::workspace(client, &args.id, Scope::Deleted)
        .await?
        .id;
    let archives = listed(client, &id).await?;
    let keys = match args.all {
        true => archives.iter().map(|a| a.key.clone()).collect(),
        false => vec![key_of(&archives, args.archive.as_deref())?],
    };
    if keys.is_empty() {
        return Err(CliError::NotFound(
            "the workspace has no archive".to_owned(),
        ));
    }
    let mut good = Vec::new();
    let mut last_error = None;
    for key in &keys {
        let message = v1::VerifyArchiveRequest {
            id: id.clone(),
            archive_key: key.clone(),
        };
        // No deadline: it takes as long as reading takes.
        let answer = client.workspaces()?.verify_archive(message).await;
        match answer.map_err(client.api_error()) {
            Ok(answer) => {
                let archive = answer.into_inner().archive.unwrap_or_default();
                match output {
                    Output::Json => {}
                    Output::Id => outln!("{key}"),
                    Output::Table => outln!(
                        "ok  {key}  {}, {} entries, sha256 {}",
                        bytes(archive.bytes),
                        archive.entries,
                        archive.sha256
                    ),
                }
                good.push(archive);
            }
            // The others are looked at too.
            Err(error) if args.all => {
                eprintln!("windlass: {key}: {error}");
                last_error = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if output == Output::Json {
        output::print_json(&good.iter().map(json::archive).collect());
    }
    match last_error {
        Some(error) if keys.len() == 1 => Err(error),
        Some(_) => Err(CliError::Failed(format!(
            "{} of {} archives could not be verified",
            keys.len() - good.len(),
            keys.len()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::fake::Fake;

    fn info(data: &[u8]) -> v1::ArchiveInfo {
        v1::ArchiveInfo {
            key: "k1".to_owned(),
            bytes: data.len() as u64,
            sha256: hex::encode(Sha256::digest(data)),
            ..v1::ArchiveInfo::default()
        }
    }

    async fn fetched(
        chunks: Vec<Result<v1::DownloadArchiveResponse, Status>>,
        file: &Path,
        force: bool,
    ) -> Result<(), CliError> {
        let fake = Fake {
            workspaces: vec![v1::Workspace {
                id: "0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01".to_owned(),
                name: "demo".to_owned(),
                ..v1::Workspace::default()
            }],
            archives: vec![info(b"")],
            download: chunks.into(),
            ..Fake::default()
        };
        let (client, _) = fake.serve().await;
        let args = DownloadArgs {
            id: "demo".to_owned(),
            archive: None,
            file: file.to_owned(),
            force,
        };
        download(&client, args, Output::Id).await
    }

    fn sent(announced: &[u8], data: &[u8]) -> Vec<Result<v1::DownloadArchiveResponse, Status>> {
        let first = v1::DownloadArchiveResponse {
            archive: Some(info(announced)),
            data: Vec::new(),
        };
        let chunks = data.chunks(2).map(|chunk| v1::DownloadArchiveResponse {
            archive: None,
            data: chunk.to_vec(),
        });
        std::iter::once(first).chain(chunks).map(Ok).collect()
    }

    #[tokio::test]
    async fn only_a_whole_download_takes_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("home.tar.zst");
        let left = || std::fs::read_dir(dir.path()).unwrap().count();

        for wrong in [b"01235".as_slice(), b"0123", b"012345"] {
            let error = fetched(sent(b"01234", wrong), &file, false).await;
            let text = error.unwrap_err().to_string();
            assert!(text.contains("not the archive"), "{text}");
            assert_eq!(left(), 0);
        }
        let mut broken = sent(b"01234", b"01234");
        broken.push(Err(Status::data_loss("corrupted")));
        assert!(fetched(broken, &file, false).await.is_err());
        assert_eq!(left(), 0);

        fetched(sent(b"01234", b"01234"), &file, false)
            .await
            .unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"01234");
        assert_eq!(left(), 1);

        let text = fetched(sent(b"new", b"new"), &file, false).await;
        assert!(text.unwrap_err().to_string().contains("--force"));
        fetched(sent(b"new", b"new"), &file, true).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(left(), 1);
    }

    #[test]
    fn archives_by_place_or_key() {
        let two = [info(b"a"), info(b"b")];
        assert_eq!(key_of(&two, None).unwrap(), "k1");
        assert_eq!(key_of(&two, Some("2")).unwrap(), "k1");
        assert_eq!(
            key_of(&two, Some("x/y/home.tar.zst")).unwrap(),
            "x/y/home.tar.zst"
        );
        for missing in ["0", "3"] {
            assert_eq!(key_of(&two, Some(missing)).unwrap_err().exit_code(), 3);
        }
        assert_eq!(key_of(&[], None).unwrap_err().exit_code(), 3);
    }
}
