//! Which provider ran which nodes, read from a profile that ONNX Runtime wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::execution_provider::from_profile_name;
use crate::inference::backend::ProviderShare;
use crate::inference::provider::Provider;

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

/// The nodes of each provider and its share of the time of all nodes in the last evaluation.
///
/// A profile shows an engine that a provider built as a single node. It counts as the nodes of `graph` that no other
/// provider ran.
pub(super) fn provider_shares(profile: &Path, graph: &[String]) -> std::io::Result<Vec<ProviderShare>> {
    let entries: Vec<Entry> = serde_json::from_str(&std::fs::read_to_string(profile)?)?;
    // The first run of a node includes one-off work, so that the last run replaces it.
    let mut nodes: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut outside_engines: BTreeSet<String> = BTreeSet::new();
    for entry in entries.into_iter().filter(|entry| entry.cat == "Node") {
        if let Some(provider) = entry.args.get("provider").and_then(|name| name.as_str())
            && let Some(node) = entry.name.strip_suffix("_kernel_time")
        {
            if !from_profile_name(provider).is_some_and(Provider::builds_engines) {
                outside_engines.insert(node.to_owned());
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
    let in_engines = graph.iter().filter(|node| !outside_engines.contains(*node)).count();
    let mut shares: Vec<_> = shares
        .into_iter()
        .map(|(name, (nodes, time))| {
            let provider = from_profile_name(&name);
            ProviderShare {
                nodes: if provider.is_some_and(Provider::builds_engines) { in_engines } else { nodes },
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
    fn nodes_are_counted_once_with_the_time_of_their_last_run() {
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
        assert_eq!(provider_shares(file.path(), &graph).unwrap(), expected);
    }
}
