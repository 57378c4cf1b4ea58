//! Keeping the list of manifests short.
//!
//! Every commit adds a manifest, writes the list of all of them anew, and every reader opens each. So each time that as many
//! commits were made as the table's property `commit.manifest.min-count-to-merge` says, the small manifests become one; a
//! manifest of [`FILES_FULL`] files is left as it is. So many commits make a list of at most twice as many, and one entry more
//! for each [`FILES_FULL`] files.
//!
//! The library only appends. What it appends to is the list that the base's current snapshot names, so that it is given a base
//! that is the same but for this: its list is one with the small manifests merged. The commit's snapshot then has a list
//! of its own, made of that. Nothing else is different, its demand on the catalog least of all, and whether it is applied
//! or not, the list of the base that was given is of no more use.
//!
//! Files keep the snapshot and the sequence number that they were added by (status EXISTING), as in the merge append of
//! Iceberg's Java library: those who read what was added since a snapshot are told it once. Manifests of deletes, of another
//! partition spec and of files that are gone are left alone.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use iceberg::io::FileIO;
use iceberg::spec::{
    FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestListWriter, ManifestWriterBuilder,
    TableMetadata,
};
use iceberg::{Error, ErrorKind, Result, Runtime};
use uuid::Uuid;

/// The standard property of Iceberg, and its default.
const COUNT_KEY: &str = "commit.manifest.min-count-to-merge";
const COUNT: usize = if cfg!(test) { 8 } else { 100 };
/// A manifest of so many files takes some MB of memory where it is written.
const FILES_FULL: u64 = 1_000;
/// Manifests are read so many at a time.
const AT_ONCE: usize = 8;

/// A base for a commit, and the list that was made for it.
pub(super) struct Merged {
    pub base: iceberg::table::Table,
    pub list: String,
}

/// The base with its small manifests merged; none where it is not their turn or there are few.
pub(super) async fn merge(base: &iceberg::table::Table) -> Result<Option<Merged>> {
    let metadata = base.metadata();
    let count = metadata.properties().get(COUNT_KEY).and_then(|value| value.parse().ok()).unwrap_or(COUNT).max(2);
    let is_turn = metadata.last_sequence_number() > 0 && metadata.last_sequence_number() % count as i64 == 0;
    let Some(snapshot) = metadata.current_snapshot().filter(|_| is_turn) else { return Ok(None) };
    if metadata.format_version() != FormatVersion::V2 {
        return Ok(None);
    }
    let manifests = base.manifest_list_reader(snapshot).load().await?;
    let (small, mut kept): (Vec<ManifestFile>, Vec<ManifestFile>) =
        manifests.consume_entries().into_iter().partition(|manifest| is_small(manifest, metadata));
    if small.len() < count {
        return Ok(None);
    }
    let mut files = 0;
    let (small, more): (Vec<ManifestFile>, Vec<ManifestFile>) = small.into_iter().partition(|manifest| {
        let has_room = files < FILES_FULL;
        files += count_files(manifest);
        has_room
    });
    kept.extend(more);
    kept.push(write(base, small).await?);

    let file_io = base.file_io();
    let list = place(metadata, "list");
    let mut writer = ManifestListWriter::v2(
        file_io.new_output(&list)?.writer().await?,
        snapshot.snapshot_id(),
        snapshot.parent_snapshot_id(),
        metadata.last_sequence_number(),
    );
    writer.add_manifests(kept.into_iter())?;
    writer.close().await?;
    let builder = iceberg::table::Table::builder()
        .identifier(base.identifier().clone())
        .file_io(file_io.clone())
        .metadata(with_list(metadata, &list)?)
        .metadata_location(base.metadata_location_result()?)
        .runtime(Runtime::try_current()?);
    Ok(Some(Merged { base: builder.build()?, list }))
}

fn count_files(manifest: &ManifestFile) -> u64 {
    [manifest.added_files_count, manifest.existing_files_count].into_iter().flatten().map(u64::from).sum()
}

fn is_small(manifest: &ManifestFile, metadata: &TableMetadata) -> bool {
    manifest.content == ManifestContentType::Data
        && manifest.partition_spec_id == metadata.default_partition_spec_id()
        && manifest.key_metadata.is_none()
        && !manifest.has_deleted_files()
        && count_files(manifest) < FILES_FULL
}

/// One manifest of the files of several.
async fn write(base: &iceberg::table::Table, small: Vec<ManifestFile>) -> Result<ManifestFile> {
    let (metadata, file_io) = (base.metadata(), base.file_io());
    let mut writer = ManifestWriterBuilder::new(
        file_io.new_output(place(metadata, "m0"))?,
        metadata.current_snapshot_id(),
        metadata.current_schema().clone(),
        metadata.default_partition_spec().as_ref().clone(),
    )
    .build_v2_data();
    let read: Vec<_> = small.into_iter().map(|manifest| load(manifest, file_io.clone())).collect();
    let mut read = futures::stream::iter(read).buffered(AT_ONCE);
    while let Some(manifest) = read.try_next().await? {
        let (entries, _) = manifest.into_parts();
        for entry in entries.into_iter().filter(|entry| entry.is_alive()) {
            let (Some(snapshot), Some(sequence)) = (entry.snapshot_id(), entry.sequence_number()) else {
                return Err(Error::new(ErrorKind::DataInvalid, "a manifest has a file without a snapshot"));
            };
            let file_sequence = entry.file_sequence_number;
            writer.add_existing_file(entry.data_file().clone(), snapshot, sequence, file_sequence)?;
        }
    }
    let mut manifest = writer.write_manifest_file().await?;
    // As if the base's own snapshot had added it.
    manifest.sequence_number = metadata.last_sequence_number();
    Ok(manifest)
}

async fn load(manifest: ManifestFile, file_io: FileIO) -> Result<Manifest> {
    manifest.load_manifest(&file_io).await
}

/// Where a file goes that no other has the name of.
fn place(metadata: &TableMetadata, what: &str) -> String {
    format!("{}/metadata/merged-{}-{what}.avro", metadata.location(), Uuid::now_v7())
}

/// The same, but that the current snapshot names another list. What Iceberg writes as JSON is all there is of it.
fn with_list(metadata: &TableMetadata, list: &str) -> Result<Arc<TableMetadata>> {
    let failed =
        |error| Error::new(ErrorKind::Unexpected, "the table's metadata does not go through JSON").with_source(error);
    let mut json = serde_json::to_value(metadata).map_err(failed)?;
    let current = json["current-snapshot-id"].clone();
    let snapshots = json["snapshots"].as_array_mut().into_iter().flatten();
    for snapshot in snapshots.filter(|snapshot| snapshot["snapshot-id"] == current) {
        snapshot["manifest-list"] = list.into();
    }
    serde_json::from_value(json).map(Arc::new).map_err(failed)
}
