//! A network and a decoder in each other's folders.

use std::path::Path;

use super::BundleError;
use super::graphs::Graphs;

/// Checks that the network is not in the place of the decoder. A decoder takes latents and nothing else.
pub(super) fn check(directory: &Path, network: &Path, graphs: &Graphs) -> Result<(), BundleError> {
    let decoder = directory.join("vae_decoder/model.onnx");
    if !decoder.is_file() || decoder == network {
        return Ok(());
    }
    let inputs = |graph: &Path| Ok::<_, BundleError>(graphs.get(graph)?.header.io.inputs.len());
    if (inputs(network)?, inputs(&decoder)? > 1) != (1, true) {
        return Ok(());
    }
    let fault = format!(
        "it takes one input, as a decoder does, and {} takes several, as a network does; exchange the two graphs",
        decoder.display()
    );
    Err(BundleError::Content { path: network.to_owned(), fault })
}
