//! `denoised init`: drafts a denoised.toml from the inputs and outputs of an ONNX graph, or makes an export live.

mod live;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::CommandError;
use super::stdout::Stdout;
use crate::bundle::{
    Bundle, LiveInputs, NETWORK_GRAPHS, class_count, graph_io, graph_key, is_residual, network_advice,
    other_graph, other_graphs,
};
use crate::image::{Format, check_format};
use crate::tensor::{Dim, GraphIo, ValueInfo};

#[derive(Debug, clap::Args)]
pub(super) struct InitArguments {
    /// The ONNX file, or the folder that has it; denoised.toml is written into the folder
    #[arg(value_name = "GRAPH | FOLDER")]
    graph: PathBuf,
    /// Give the network and the text encoders in the folder of a pipeline inputs for ControlNets and LoRAs instead
    #[arg(long)]
    live: bool,
    /// The layers that get inputs for LoRAs
    #[arg(long, value_enum, default_value = "transformer", requires = "live", value_name = "LAYERS")]
    lora: live::Lora,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), CommandError> {
    if arguments.live {
        return live::run(&arguments.graph, arguments.lora);
    }
    let (directory, file) = location(&arguments.graph)?;
    let path = directory.join("denoised.toml");
    if path.exists() {
        return Err(CommandError::usage(anyhow::anyhow!(
            "{} already exists and is not overwritten; remove it to draft a new one",
            path.display()
        )));
    }
    let graph_path = directory.join(&file);
    let mut graph = graph_io(&graph_path)?;
    graph.inputs.retain(|input| !is_residual(&input.name));
    let live = LiveInputs::find(&graph, |_| false);
    graph.inputs.retain(|input| !live.contains(&input.name));
    if let Some(pipeline) = pipeline_around(&directory) {
        return Err(CommandError::usage(anyhow!(
            "{} is the network of the pipeline in {1}; name that folder: denoised sample {1} needs no denoised.toml",
            graph_path.display(),
            pipeline.display()
        )));
    }
    let has_scheduler = ["scheduler_config.json", "scheduler/scheduler_config.json"];
    let has_scheduler = has_scheduler.iter().any(|file| directory.join(file).is_file());
    let class = NetworkInputs::find(&graph)?.classes.first().map(|input| input.name.clone());
    let classes = class.map(|name| class_count(&graph_path, &name)).transpose()?.flatten();
    let text = draft(&graph, &file, has_scheduler, classes)?;
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    write!(Stdout, "{text}")?;
    eprintln!("wrote {}; {}", path.display(), next_step(&directory));
    Ok(())
}

/// Returns the folder of the pipeline that has a network's folder.
fn pipeline_around(directory: &Path) -> Option<PathBuf> {
    let parent = directory.canonicalize().ok()?.parent()?.to_owned();
    parent.join("model_index.json").is_file().then_some(parent)
}

/// Returns what to do with a folder that has a draft: a command that works, or what is missing.
fn next_step(directory: &Path) -> String {
    let bundle = match Bundle::open(directory) {
        Ok(bundle) => bundle,
        Err(error) => return format!("before the model can be used: {error}"),
    };
    let Some(facts) = bundle.network_facts() else {
        return "name the inputs under [graph] that are not named yet".to_owned();
    };
    if facts.takes_text && bundle.latent.is_none() {
        return "its network takes text, so that the folder also needs text encoders and an autoencoder: export the whole \
                pipeline (docs/models.md)"
            .to_owned();
    }
    let has_decoder = bundle.latent.as_ref().is_some_and(|latent| latent.decoder.is_some());
    let is_picture =
        has_decoder || check_format(Format::Png, bundle.manifest.sample.kind, &facts.sample_shape).is_ok();
    let ending = if is_picture { "png" } else { "npy" };
    let class = if facts.takes_class { " --class 0" } else { "" };
    let prompt = if facts.takes_text { " --prompt \"a red fox\"" } else { "" };
    format!("check it, then run: denoised sample {} --output x.{ending}{class}{prompt}", directory.display())
}

/// The folder, and the ONNX file relative to it.
fn location(argument: &Path) -> anyhow::Result<(PathBuf, String)> {
    let name =
        |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if !argument.is_dir() {
        std::fs::metadata(argument).with_context(|| format!("cannot read {}", argument.display()))?;
        let directory = argument.parent().filter(|parent| !parent.as_os_str().is_empty());
        return Ok((directory.unwrap_or(Path::new(".")).to_owned(), name(argument)));
    }
    if let Some(file) = NETWORK_GRAPHS.iter().find(|file| argument.join(file).is_file()) {
        return Ok((argument.to_owned(), (*file).to_owned()));
    }
    std::fs::read_dir(argument).with_context(|| format!("cannot read {}", argument.display()))?;
    let mut graphs = other_graphs(argument);
    graphs.extend(NETWORK_FOLDERS.iter().filter_map(|folder| other_graph(argument, folder)));
    match graphs.as_slice() {
        [graph] => Ok((argument.to_owned(), graph.clone())),
        [] => bail!("{} has no ONNX file; {}", argument.display(), network_advice(argument)),
        several => bail!("{} has several ONNX files; name one: {}", argument.display(), several.join(", ")),
    }
}

/// The folders of a network in a pipeline.
const NETWORK_FOLDERS: [&str; 2] = ["unet", "transformer"];

/// The usual names of an input for the noise level.
const NOISE_LEVELS: [&str; 3] = ["sigma", "sigmas", "noise_level"];

/// The usual names of an input for the time step.
const TIMESTEPS: [&str; 4] = ["timestep", "timesteps", "t", "time"];

/// The usual names of an input for the class label, beside those that contain "class".
const LABELS: [&str; 3] = ["y", "label", "labels"];

/// What the inputs of a network are for, as far as their names and types show it.
struct NetworkInputs<'a> {
    sample: &'a ValueInfo,
    time: &'a ValueInfo,
    /// Those of class labels; a network that is served has one at most.
    classes: Vec<&'a ValueInfo>,
    others: Vec<&'a ValueInfo>,
}

impl<'a> NetworkInputs<'a> {
    fn find(graph: &'a GraphIo) -> anyhow::Result<Self> {
        let is_float = |port: &&ValueInfo| port.element.is_float();
        let Some(sample) = graph.inputs.iter().filter(is_float).max_by_key(|port| port.shape.len()) else {
            bail!("the graph has no floating-point input for the sample");
        };
        if sample.shape.len() < 2 {
            bail!("no floating-point input of the graph has two or more axes, as a batch of samples has");
        }
        let others: Vec<&ValueInfo> = graph.inputs.iter().filter(|port| port.name != sample.name).collect();
        let is_time = |port: &&&ValueInfo| {
            let name = port.name.to_lowercase();
            TIMESTEPS.iter().chain(&NOISE_LEVELS).any(|time| name == *time)
                || name.contains("sigma")
                || name.contains("time")
        };
        let is_number = |port: &&&ValueInfo| port.shape.len() <= 1 && !is_named_class(port);
        let time = others.iter().find(is_time).or_else(|| others.iter().find(is_number));
        let Some(time) = time.copied() else {
            bail!("the graph has no input for a timestep or a noise level");
        };
        let others = others.into_iter().filter(|port| port.name != time.name);
        let (classes, others) = others.partition(|port| is_class(port));
        Ok(Self { sample, time, classes, others })
    }
}

fn is_named_class(port: &ValueInfo) -> bool {
    let name = port.name.to_lowercase();
    name.contains("class") || LABELS.contains(&name.as_str())
}

/// Whether an input takes a class label: by its name, or as an integer for each sample.
fn is_class(port: &ValueInfo) -> bool {
    let is_label = port.shape.len() <= 1 && port.element.is_integer() && graph_key(port).is_none();
    port.name.contains("class") || is_label
}

fn draft(graph: &GraphIo, file: &str, has_scheduler: bool, classes: Option<usize>) -> anyhow::Result<String> {
    let NetworkInputs { sample, time, classes: labels, others } = NetworkInputs::find(graph)?;
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
    match labels.as_slice() {
        [] => {}
        [class] => writeln!(text, "class_labels = {:?}", class.name)?,
        [class, other, ..] => return Err(same_key("class_labels", class, other)),
    }
    let (filled, conditions): (Vec<&ValueInfo>, Vec<&ValueInfo>) =
        others.into_iter().partition(|port| graph_key(port).is_some());
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
    if !labels.is_empty() {
        let names: Vec<String> = (0..classes.unwrap_or(1)).map(|label| format!("\"{label}\"")).collect();
        let hint = if classes.is_some() { "one name for each label" } else { "add one name for each label" };
        writeln!(
            text,
            "\n[classes]  # {hint}; if one label means no class, make its name \"\" and set null to it to enable guidance\nnames = [{}]",
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

    /// The label was taken for the time, or refused.
    #[test]
    fn a_class_label_named_y_was_not_one() {
        for name in ["y", "label", "labels", "c", "cond", "classes"] {
            let label = ValueInfo::with_axes(name, DataType::I64, &[None]);
            // Also before the time.
            let inputs = vec![port("x", &IMAGE), label, port("t", &[None])];
            let graph = GraphIo { inputs, outputs: vec![port("out", &IMAGE)] };
            let manifest = Manifest::parse(&draft(&graph, "net.onnx", false, Some(3)).unwrap()).unwrap();
            assert_eq!(manifest.graph.class_labels.as_deref(), Some(name));
            assert_eq!(manifest.graph.timestep.as_deref(), Some("t"));
            assert_eq!(manifest.classes.names.len(), 3);
        }
        let number = port("c", &[None]);
        let manifest = Manifest::parse(&draft(&graph(&[number]), "net.onnx", false, None).unwrap()).unwrap();
        assert!(manifest.conditions.contains_key("c"));
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
