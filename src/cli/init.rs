//! `denoised init`: drafts a denoised.toml from the inputs and outputs of an ONNX graph.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::CommandError;
use super::stdout::Stdout;
use crate::bundle::{NETWORK_GRAPHS, class_count, graph_io, graph_key};
use crate::tensor::{Dim, GraphIo, ValueInfo};

#[derive(Debug, clap::Args)]
pub(super) struct InitArguments {
    /// The ONNX file, or the folder that has it; denoised.toml is written into the folder
    #[arg(value_name = "GRAPH | FOLDER")]
    graph: PathBuf,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), CommandError> {
    let (directory, file) = location(&arguments.graph)?;
    let path = directory.join("denoised.toml");
    if path.exists() {
        return Err(CommandError::usage(anyhow::anyhow!(
            "{} already exists and is not overwritten; remove it to draft a new one",
            path.display()
        )));
    }
    let graph_path = directory.join(&file);
    let graph = graph_io(&graph_path)?;
    let has_scheduler = ["scheduler_config.json", "scheduler/scheduler_config.json"];
    let has_scheduler = has_scheduler.iter().any(|file| directory.join(file).is_file());
    let class = graph.inputs.iter().find(|input| input.name.contains("class"));
    let classes = match class {
        Some(input) => class_count(&graph_path, &input.name)?,
        None => None,
    };
    let text = draft(&graph, &file, has_scheduler, classes)?;
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    write!(Stdout, "{text}")?;
    let class = if class.is_some() { " --class 0" } else { "" };
    let takes_text = graph.inputs.iter().any(|input| graph_key(input) == Some("text"));
    let prompt = if takes_text { " --prompt \"a red fox\"" } else { "" };
    eprintln!(
        "wrote {}; check it, then run: denoised sample {} --output x.png{class}{prompt}",
        path.display(),
        directory.display()
    );
    Ok(())
}

/// The folder, and the ONNX file relative to it.
fn location(argument: &Path) -> anyhow::Result<(PathBuf, String)> {
    let name =
        |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if !argument.is_dir() {
        let directory = argument.parent().filter(|parent| !parent.as_os_str().is_empty());
        return Ok((directory.unwrap_or(Path::new(".")).to_owned(), name(argument)));
    }
    if let Some(file) = NETWORK_GRAPHS.iter().find(|file| argument.join(file).is_file()) {
        return Ok((argument.to_owned(), (*file).to_owned()));
    }
    let entries =
        std::fs::read_dir(argument).with_context(|| format!("cannot read {}", argument.display()))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut graphs: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|kind| kind == "onnx"))
        .map(|path| name(&path))
        .collect();
    graphs.sort();
    match graphs.as_slice() {
        [graph] => Ok((argument.to_owned(), graph.clone())),
        [] => bail!("{} has no ONNX file; name the folder or the file of a network", argument.display()),
        several => bail!("{} has several ONNX files; name one: {}", argument.display(), several.join(", ")),
    }
}

/// The usual names of an input for the noise level.
const NOISE_LEVELS: [&str; 3] = ["sigma", "sigmas", "noise_level"];

fn draft(graph: &GraphIo, file: &str, has_scheduler: bool, classes: Option<usize>) -> anyhow::Result<String> {
    let is_float = |port: &&ValueInfo| port.element.is_float();
    let Some(sample) = graph.inputs.iter().filter(is_float).max_by_key(|port| port.shape.len()) else {
        bail!("the graph has no floating-point input for the sample");
    };
    if sample.shape.len() < 2 {
        bail!("no floating-point input of the graph has two or more axes, as a batch of samples has");
    }
    let timesteps = ["timestep", "timesteps", "t", "time"];
    let others: Vec<&ValueInfo> = graph.inputs.iter().filter(|port| port.name != sample.name).collect();
    let is_time = |port: &&&ValueInfo| {
        let name = port.name.to_lowercase();
        timesteps.iter().chain(&NOISE_LEVELS).any(|time| name == *time)
            || name.contains("sigma")
            || name.contains("time")
    };
    let Some(time) = others.iter().find(is_time).or_else(|| others.iter().find(|port| port.shape.len() <= 1))
    else {
        bail!("the graph has no input for a timestep or a noise level");
    };
    let Some(output) = graph.outputs.first() else { bail!("the graph has no output") };
    let takes_sigma = NOISE_LEVELS.iter().any(|name| time.name.to_lowercase().contains(name));
    let mut text = String::new();
    writeln!(
        text,
        "# Draft from {file}: {}.",
        graph.inputs.iter().map(ValueInfo::to_string).collect::<Vec<_>>().join(", ")
    )?;
    writeln!(
        text,
        "[graph]\nfile = {file:?}\nsample = {:?}\ntimestep = {:?}\noutput = {:?}",
        sample.name, time.name, output.name
    )?;
    let mut labels = others.iter().filter(|port| port.name.contains("class"));
    let class = labels.next();
    if let Some(class) = class {
        writeln!(text, "class_labels = {:?}", class.name)?;
        if let Some(other) = labels.next() {
            return Err(same_key("class_labels", class, other));
        }
    }
    let is_condition = |port: &&&ValueInfo| port.name != time.name && !port.name.contains("class");
    let (filled, conditions): (Vec<&ValueInfo>, Vec<&ValueInfo>) =
        others.iter().filter(is_condition).partition(|port| graph_key(port).is_some());
    let mut keys: BTreeMap<&str, &ValueInfo> = BTreeMap::new();
    for port in filled {
        let key = graph_key(port).unwrap_or_default();
        if let Some(other) = keys.insert(key, port) {
            return Err(same_key(key, other, port));
        }
        writeln!(text, "{key} = {:?}", port.name)?;
    }
    if !has_scheduler {
        text.push_str(if takes_sigma { SIGMA_SCHEDULER } else { TIMESTEP_SCHEDULER });
    }
    if class.is_some() {
        let names: Vec<String> = (0..classes.unwrap_or(1)).map(|label| format!("\"{label}\"")).collect();
        let hint = if classes.is_some() { "one name for each label" } else { "add one name for each label" };
        writeln!(
            text,
            "\n[classes]  # {hint}; if one label means no class, set null to it to enable guidance\nnames = [{}]",
            names.join(", ")
        )?;
    }
    for condition in conditions {
        let is_one_number = condition.shape.len() <= 1 && condition.element.is_float();
        if !is_one_number {
            bail!(
                "the graph's input {condition} is neither one number per sample, which a condition is, nor anything else \
                 that a job has; export the network without it"
            );
        }
        writeln!(
            text,
            "\n[conditions.{:?}]  # the range that a job may choose from\ndefault = 0.0\nmin = 0.0\nmax = 1.0",
            condition.name
        )?;
    }
    if let [_, Dim::Fixed(_), Dim::Fixed(2)] = sample.shape.as_slice() {
        text.push_str("\n[sample]\nkind = \"points\"\n");
    }
    Ok(text)
}

/// Two inputs that one key would have to name.
fn same_key(key: &str, first: &ValueInfo, second: &ValueInfo) -> anyhow::Error {
    anyhow!(
        "the graph's inputs {first} and {second} would both be [graph] {key}, which names one input; export the network \
         without one of them"
    )
}

/// For a network that takes σ and returns the sample.
const SIGMA_SCHEDULER: &str = "
[scheduler]  # one step from sigma_max; EDMEulerScheduler takes several
class = \"CMStochasticIterativeScheduler\"
preconditioning = \"none\"  # the network takes x and sigma and returns the sample; edm: it takes c_in x and c_noise
sigma_min = 0.002
sigma_max = 80.0

[default]
steps = 1
";

/// For a network that takes timesteps.
const TIMESTEP_SCHEDULER: &str = "
[scheduler]  # as in training
class = \"DDPMScheduler\"
beta_schedule = \"linear\"
prediction_type = \"epsilon\"

[default]
sampler = \"dpmpp_2m\"
steps = 20
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Manifest;
    use crate::tensor::DataType;

    const IMAGE: [Option<usize>; 4] = [None, Some(1), Some(8), Some(8)];

    fn port(name: &str, axes: &[Option<usize>]) -> ValueInfo {
        ValueInfo::with_axes(name, DataType::F32, axes)
    }

    /// A graph that takes a sample, a noise level and other inputs.
    fn graph(others: &[ValueInfo]) -> GraphIo {
        let inputs =
            [port("noisy", &IMAGE), port("sigma", &[None])].into_iter().chain(others.iter().cloned());
        GraphIo { inputs: inputs.collect(), outputs: vec![port("denoised", &IMAGE)] }
    }

    #[test]
    fn a_draft_is_a_valid_manifest() {
        let draft = |graph: &GraphIo| draft(graph, "net.onnx", false, None);
        let difficulty = port("difficulty", &[None]);
        let manifest = Manifest::parse(&draft(&graph(std::slice::from_ref(&difficulty))).unwrap()).unwrap();
        assert_eq!(manifest.graph.sample.as_deref(), Some("noisy"));
        assert_eq!(manifest.graph.timestep.as_deref(), Some("sigma"));
        assert!(manifest.scheduler.is_some() && manifest.conditions.contains_key("difficulty"));
        let context = port("context", &[None, None, Some(16)]);
        let manifest = Manifest::parse(&draft(&graph(&[difficulty, context])).unwrap()).unwrap();
        assert_eq!(manifest.graph.text.as_deref(), Some("context"));
        let without_time = GraphIo { inputs: vec![port("x", &IMAGE)], ..graph(&[]) };
        let error = draft(&without_time).unwrap_err().to_string();
        assert!(error.contains("no input for a timestep"), "{error}");
    }

    #[test]
    fn two_inputs_for_one_key_are_refused() {
        let rows = [None, None, Some(16)];
        let error =
            |others: [ValueInfo; 2]| draft(&graph(&others), "net.onnx", false, None).unwrap_err().to_string();
        assert_eq!(
            error([port("context", &rows), port("context_2", &rows)]),
            "the graph's inputs context float32[?, ?, 16] and context_2 float32[?, ?, 16] would both be [graph] text, which \
             names one input; export the network without one of them"
        );
        let error = error([port("class", &[None]), port("superclass", &[None])]);
        assert!(error.contains("would both be [graph] class_labels"), "{error}");
    }
}
