//! Prepares a graph, and compares it with the exported one before it serves.

use std::path::Path;

use rten_onnx::onnx::{ModelProto, StringStringEntryProto};

use super::external_tensors::try_for_each;
use super::manifest::{GraphKind, Manifest};
use super::weights::WeightsFile;
use super::write::{GRAPH, WEIGHTS, Weights, lay_out, write_graph_only, write_with_weights};
use super::{OpenSession, PreparedGraph, Request, comparison, make_room, passes};
use crate::onnx::{OWN_VALUES, decode_without_weights};

/// Why no graph is prepared.
#[derive(Debug)]
pub(super) enum BuildError {
    /// The cache cannot be read or written.
    Cache(std::io::Error),
    /// An entry of this many bytes is larger than the cache may be.
    TooLarge(u64),
    /// The graph, or the engine with it.
    Content(String),
}

impl From<std::io::Error> for BuildError {
    fn from(error: std::io::Error) -> Self {
        Self::Cache(error)
    }
}

/// Decodes the exported graph and applies the passes. Fails with a reason if the graph is opened as it is.
pub(super) fn decode(request: &Request<'_>) -> Result<(ModelProto, Weights), String> {
    let mut model = decode_without_weights(&request.source.files.graph, OWN_VALUES)?;
    let changes = passes::apply(&mut model, request.target());
    let weights = Weights::of(&mut model)?;
    log::debug!("{}: {changes:?}", request.source.name);
    Ok((model, weights))
}

/// Writes the files of an entry except its manifest, and compares the graph with the exported one.
pub(super) fn build(
    request: &Request<'_>,
    directory: &Path,
    model: &mut ModelProto,
    weights: &Weights,
    open_session: OpenSession<'_>,
) -> Result<Manifest, BuildError> {
    let (options, files) = (request.options, request.source.files.as_ref());
    let (manifest, graph) = if weights.are_mappable && request.allows_memory() {
        let manifest = write_graph_only(directory, model)?;
        let graph = request.with_exported_weights(&directory.join(GRAPH)).map_err(BuildError::Content)?;
        (manifest, graph)
    } else {
        let layout = lay_out(model).map_err(BuildError::Content)?;
        let weights = WeightsFile::create(&directory.join(WEIGHTS), files, &layout)?;
        if !make_room(&options.cache, options.cache_size, layout.len, directory)? {
            return Err(BuildError::TooLarge(layout.len));
        }
        let manifest = write_with_weights(directory, &request.source.name, model, &weights)?;
        (manifest, PreparedGraph::File(directory.join(GRAPH)))
    };
    match compare(request, &graph, open_session).map_err(BuildError::Content)? {
        None => Ok(manifest),
        Some(difference) => {
            // Remembered, so that later starts do not prepare it again.
            for name in manifest.files.keys() {
                std::fs::remove_file(directory.join(name))?;
            }
            Ok(Manifest { graph: GraphKind::Unfit { difference }, files: Default::default() })
        }
    }
}

/// Returns how the output of the prepared graph differs. Fails if the exported graph cannot be evaluated.
fn compare(
    request: &Request<'_>,
    graph: &PreparedGraph,
    open_session: OpenSession<'_>,
) -> Result<Option<String>, String> {
    let (declared, example) = (&request.source.files.header.io, &request.source.example);
    let mut failure = "no input for a comparison is known".to_owned();
    let mut session = open_session(None)?;
    let mut exported = None;
    for shapes in comparison::input_shapes(declared, example) {
        match comparison::evaluate(session.as_mut(), declared, &shapes, &example.output) {
            Ok(output) => {
                exported = Some((shapes, output));
                break;
            }
            Err(error) => failure = error.to_string(),
        }
    }
    // Before the prepared graph is opened, so that memory holds one at a time.
    drop(session);
    let (shapes, exported) = exported.ok_or(failure)?;
    let prepared = open_session(Some(graph)).and_then(|mut session| {
        comparison::evaluate(session.as_mut(), declared, &shapes, &example.output)
            .map_err(|error| error.to_string())
    });
    Ok(prepared.map_or_else(Some, |prepared| comparison::difference(&exported, &prepared)))
}

/// Changes the locations of all external values.
pub(super) fn relocate(model: &mut ModelProto, location: &dyn Fn(&str) -> String) -> Result<(), String> {
    let is_location = |entry: &&mut StringStringEntryProto| entry.key.as_deref() == Some("location");
    let Some(graph) = &mut model.graph else { return Ok(()) };
    try_for_each(graph, &mut |tensor| {
        for entry in tensor.external_data.iter_mut().filter(is_location) {
            entry.value = entry.value.as_deref().map(location);
        }
        Ok(())
    })
}
