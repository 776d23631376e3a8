//! The labels of classes that a network knows: the rows of the embedding that its graph selects from.

use std::path::Path;

use super::{BundleError, Manifest, Signature, class_count};

/// The number of labels in the embedding of the graph's input for a class; `None` without such an input, or if the graph
/// has no embedding that its label selects from.
pub(super) fn embedding_rows(
    graph: &Path,
    signature: Option<&Signature>,
) -> Result<Option<usize>, BundleError> {
    match signature.and_then(|signature| signature.class.as_ref()) {
        Some((input, _)) => class_count(graph, input),
        None => Ok(None),
    }
}

/// Checks `[classes]` of the denoised.toml at `path` against the number of labels that the network has.
pub(super) fn check(path: &Path, manifest: &Manifest, labels: usize) -> Result<(), BundleError> {
    let classes = &manifest.classes;
    let last = labels.saturating_sub(1);
    let outside = classes.null.filter(|null| usize::try_from(*null).map_or(true, |null| null >= labels));
    let fault = match (outside, classes.names.len()) {
        (Some(null), _) => {
            format!(
                "classes.null is {null}, but the labels of the network are 0 to {last}; set one of them, or remove null"
            )
        }
        (None, named) if named > labels => format!(
            "classes.names has {named} names, but the labels of the network are 0 to {last}; remove the names that are \
             too many"
        ),
        (None, named) if named > 0 && named < labels && classes.null != i64::try_from(named).ok() => format!(
            "classes.names has {named} names, but the labels of the network are 0 to {last}; add the names that are \
             missing, or remove all"
        ),
        _ => return Ok(()),
    };
    Err(BundleError::Content { path: path.to_owned(), fault })
}
