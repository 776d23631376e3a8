//! Which provider ran which nodes, read from a profile of ONNX Runtime's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::inference::provider::Provider;
use crate::model::predictor::ProviderShare;

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: BTreeMap<String, serde_json::Value>,
}

/// Each provider's nodes and its share of the time that all nodes took in the last of the runs.
///
/// A profile shows an engine of a provider's own as one node; what it holds are the nodes of the
/// `graph` that no other provider ran.
pub(crate) fn shares(profile: &Path, graph: &[String]) -> Result<Vec<ProviderShare>, String> {
    let text = std::fs::read_to_string(profile).map_err(|error| error.to_string())?;
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    // The first run of a node includes what is done only once, so a later one replaces it.
    let mut nodes: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut alone: BTreeSet<String> = BTreeSet::new();
    for entry in entries.into_iter().filter(|entry| entry.cat == "Node") {
        if let Some(provider) = entry.args.get("provider").and_then(|name| name.as_str())
            && let Some(node) = entry.name.strip_suffix("_kernel_time")
        {
            if !Provider::of_profile(provider).is_some_and(Provider::builds_engines) {
                alone.insert(node.to_owned());
            }
            nodes.insert((provider.to_owned(), node.to_owned()), entry.dur);
        }
    }
    let total = nodes.values().sum::<u64>().max(1) as f64;
    let mut shares: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for ((provider, _), duration) in nodes {
        let (count, time) = shares.entry(provider).or_default();
        *count += 1;
        *time += duration;
    }
    let within_engines = graph.iter().filter(|node| !alone.contains(*node)).count();
    let mut shares: Vec<_> = shares
        .into_iter()
        .map(|(name, (nodes, time))| {
            let provider = Provider::of_profile(&name);
            ProviderShare {
                nodes: if provider.is_some_and(Provider::builds_engines) { within_engines } else { nodes },
                provider: provider.map_or(name, |provider| provider.to_string()),
                percent: (time as f64 / total * 1000.0).round() / 10.0,
            }
        })
        .collect();
    shares.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_counted_by_node_and_by_the_last_run_s_time() {
        let node = |name: &str, provider: &str, duration: u64| {
            format!(
                r#"{{"cat": "Node", "name": "{name}_kernel_time", "dur": {duration}, "args": {{"provider": "{provider}"}}}}"#
            )
        };
        let entries = [
            r#"{"cat": "Session", "name": "model_run", "dur": 9, "args": {}}"#.to_owned(),
            node("engine_0", "TensorrtExecutionProvider", 9000),
            node("b", "CPUExecutionProvider", 100),
            node("engine_0", "TensorrtExecutionProvider", 600),
            node("b", "CPUExecutionProvider", 100),
            node("c", "CPUExecutionProvider", 300),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("[{}]", entries.join(","))).unwrap();
        let share =
            |provider: &str, nodes, percent| ProviderShare { provider: provider.to_owned(), nodes, percent };
        let graph = ["a", "b", "d", "e"].map(str::to_owned);
        let expected = [share("tensorrt", 3, 60.0), share("cpu", 2, 40.0)];
        assert_eq!(shares(file.path(), &graph).unwrap(), expected);
    }
}
