//! The ControlNets of a pipeline: in its own folders `controlnet`, `controlnet_1` and so on, as diffusers saves several, and
//! in those that denoised.toml names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ControlNet, ControlNetIo, takes_residuals, unserved_network};
use crate::bundle::graphs::Graphs;
use crate::bundle::json_file::read_or_default;
use crate::bundle::{BundleError, Manifest, PipelineKind, Signature};

/// The key in a ControlNet's config.json that is not part of its graph.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ControlNetConfig {
    global_pool_conditions: bool,
}

/// The graphs that may be ControlNets, by their names.
#[derive(Debug, Default)]
pub(in crate::bundle) struct ControlNetFolders {
    /// Those in the pipeline's folder.
    own: BTreeMap<(usize, String), PathBuf>,
    /// Those that denoised.toml names.
    named: BTreeMap<String, PathBuf>,
}

impl ControlNetFolders {
    /// Finds the graphs. `description` is the path of denoised.toml.
    pub(in crate::bundle) fn find(
        directory: &Path,
        description: &Path,
        manifest: &Manifest,
    ) -> Result<Self, BundleError> {
        let mut found = Self::default();
        for (name, path) in &manifest.controlnets {
            let path = directory.join(path);
            let graph = if path.is_dir() { path.join("model.onnx") } else { path };
            if !graph.is_file() {
                let fault =
                    format!("controlnets.{name}: there is no file {}; correct the path", graph.display());
                return Err(BundleError::Content { path: description.to_owned(), fault });
            }
            found.named.insert(name.clone(), graph);
        }
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let graph = entry.path().join("model.onnx");
            let is_named = found.named.values().any(|named| *named == graph);
            if (name == "controlnet" || name.starts_with("controlnet_")) && graph.is_file() && !is_named {
                // controlnet_10 comes after controlnet_9.
                found.own.insert((name.len(), name), graph);
            }
        }
        if let Some((_, name)) = found.own.keys().find(|(_, name)| found.named.contains_key(name)) {
            let fault = format!("controlnets.{name}: the folder {name} has this name; choose another");
            return Err(BundleError::Content { path: description.to_owned(), fault });
        }
        Ok(found)
    }
}

/// Reads the ControlNets, and holds each against the U-Net, whose file is `network`.
pub(in crate::bundle) fn read_all(
    folders: &ControlNetFolders,
    network: &Path,
    unet: &Signature,
    graphs: &mut Graphs,
) -> Result<Vec<ControlNet>, BundleError> {
    let kind = PipelineKind::from_signature(unet);
    let steers = kind.is_some_and(PipelineKind::has_unet);
    let fault = |path: &Path, fault: String| Err(BundleError::Content { path: path.to_owned(), fault });
    let mut found = Vec::new();
    let own = folders.own.iter().filter(|_| steers).map(|((_, name), graph)| (name, graph, true));
    for (name, graph, is_own) in own.chain(folders.named.iter().map(|(name, graph)| (name, graph, false))) {
        if !steers {
            let title = kind.map_or("this network", PipelineKind::title);
            return fault(
                graph,
                format!("{title} is not steered by ControlNets here; remove controlnets.{name}"),
            );
        }
        let files = graphs.get(graph)?;
        let io = &files.header.io;
        match unserved_network(io) {
            // Exports of some programs have the U-Net with residual inputs in this folder.
            Some(other) if is_own && takes_residuals(io) => {
                log::warn!("{}: it is {other}; to use it, put it into the folder unet", graph.display());
                continue;
            }
            Some(other) if is_own => {
                return fault(
                    graph,
                    format!("it is {other}; move its folder elsewhere, or put a ControlNet there"),
                );
            }
            Some(other) => {
                return fault(graph, format!("it is {other}; correct controlnets.{name} in denoised.toml"));
            }
            None => {}
        }
        if unet.live.residuals.is_empty() {
            let folder = network.parent().and_then(Path::parent).unwrap_or(network).display();
            return fault(
                network,
                format!(
                    "it has no inputs for the residuals of the ControlNet {}, as no export of optimum has; add them with \
                     `denoised init --live {folder}`",
                    graph.display()
                ),
            );
        }
        graphs.open(graph)?;
        let io = match ControlNetIo::resolve(io, unet) {
            Ok(io) => io,
            Err(reason) => {
                return fault(graph, format!("the ControlNet {reason} (the U-Net is {})", network.display()));
            }
        };
        let config: ControlNetConfig = read_or_default(&graph.with_file_name("config.json"))?;
        let pools = config.global_pool_conditions;
        found.push(ControlNet { name: name.clone(), graph: graph.clone(), io, pools });
    }
    Ok(found)
}
