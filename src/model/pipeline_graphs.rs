//! The graphs around a denoiser of latents, read and held against each other before any is opened.

use std::path::{Path, PathBuf};

use super::ModelError;
use super::text_encoder_graph::TextEncoderGraph;
use super::tokenizer::TokenizerError;
use crate::bundle::{
    AutoencoderIo, Bundle, LatentComponents, LatentSizes, LayerRule, Masking, PipelineKind, Role, RowUse,
    Signature, SignatureError, TextLength,
};
use crate::tensor::{Dim, GraphIo};

/// The sizes and lengths that the graphs of a pipeline take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimits {
    /// The height and width of a latent must be multiples of this.
    pub latent_multiple: usize,
    /// The largest height and width of a latent, if the network bounds them.
    pub largest_latent: Option<usize>,
    /// The height and width of the decoder's latents, where its graph fixes them.
    pub decoded_latent: [Option<usize>; 2],
    /// The height and width of the encoder's pictures, where its graph fixes them.
    pub encoded_picture: [Option<usize>; 2],
    /// The default number of tokens of the text encoder that takes as many as a job asks for.
    pub sequence_length: usize,
    /// Whether the graphs take no other number of them.
    pub fixes_sequence_length: bool,
    /// How many of CLIP's last layers can be skipped.
    pub largest_clip_skip: usize,
}

/// The graphs around a denoiser.
pub(super) struct PipelineGraphs {
    pub(super) components: LatentComponents,
    pub(super) kind: PipelineKind,
    pub(super) text_encoders: Vec<TextEncoderGraph>,
    pub(super) decoder: Option<(PathBuf, AutoencoderIo)>,
    pub(super) encoder: Option<(PathBuf, AutoencoderIo)>,
    pub(super) limits: SizeLimits,
}

impl PipelineGraphs {
    /// Reads the graphs around a bundle's denoiser. Returns `None` if the denoiser takes no text.
    pub(super) fn read(bundle: &Bundle, signature: &Signature) -> Result<Option<Self>, ModelError> {
        let Some(kind) = PipelineKind::from_signature(signature) else {
            return match signature.tensors.first() {
                None => Ok(None),
                Some(_) if signature.has(Role::Text) => {
                    Err(ModelError::UnknownFamily { graph: bundle.graph.clone() })
                }
                Some(input) => {
                    Err(ModelError::NoTextInput { graph: bundle.graph.clone(), input: input.name.clone() })
                }
            };
        };
        bundle.check_components(kind)?;
        let Some(components) = &bundle.latent else { return Ok(None) };
        let (found, max) = (components.text_encoders.len(), kind.facts().text_encoders.len());
        if found > max {
            return Err(ModelError::TooManyTextEncoders { name: bundle.name.clone(), found, max });
        }
        let facts = components.text_encoder_facts(kind);
        let text_encoders = components.text_encoders.iter().zip(&components.tokenizer_classes).zip(facts);
        let text_encoders = text_encoders.map(|(((path, tokenizer), class), facts)| {
            TextEncoderGraph::read(bundle, path, (tokenizer, class.as_deref()), kind, facts)
        });
        let text_encoders = text_encoders.collect::<Result<Vec<_>, _>>()?;
        check_lengths(kind, &text_encoders)?;
        let decoder = autoencoder(bundle, components.decoder.as_deref(), components, AutoencoderIo::decoder)?;
        let encoder = autoencoder(bundle, components.encoder.as_deref(), components, AutoencoderIo::encoder)?;
        let (sequence_length, fixes_sequence_length) =
            sequence_length(bundle, kind, &text_encoders, signature)?;
        check_widths(bundle, kind, &text_encoders, signature, components)?;
        let size =
            |half: &Option<(PathBuf, AutoencoderIo)>| half.as_ref().map_or([None; 2], |(_, io)| io.size);
        let latents = LatentSizes::read(&bundle.graph)?;
        let limits = SizeLimits {
            latent_multiple: latents.multiple,
            largest_latent: latents.largest,
            decoded_latent: size(&decoder),
            encoded_picture: size(&encoder),
            sequence_length,
            fixes_sequence_length,
            largest_clip_skip: largest_clip_skip(&text_encoders),
        };
        check_sizes(signature, components.vae.factor, decoder.as_ref(), encoder.as_ref())?;
        let vae = components.vae.reduced_to(kind.facts().latent_scaling);
        let components = LatentComponents { vae, ..components.clone() };
        Ok(Some(Self { components, kind, text_encoders, decoder, encoder, limits }))
    }
}

/// Finds the meaning of a graph's inputs and outputs.
fn resolve<T>(
    bundle: &Bundle,
    path: &Path,
    meaning: impl FnOnce(&GraphIo) -> Result<T, SignatureError>,
) -> Result<T, ModelError> {
    meaning(&bundle.files(path)?.header.io)
        .map_err(|error| ModelError::Signature { graph: path.to_owned(), error })
}

fn autoencoder(
    bundle: &Bundle,
    path: Option<&Path>,
    components: &LatentComponents,
    meaning: impl FnOnce(&GraphIo, crate::bundle::VaeConfig) -> Result<AutoencoderIo, SignatureError>,
) -> Result<Option<(PathBuf, AutoencoderIo)>, ModelError> {
    let read =
        |path: &Path| Ok((path.to_owned(), resolve(bundle, path, |graph| meaning(graph, components.vae))?));
    path.map(read).transpose()
}

fn mismatch(graph: &Path, fault: impl Into<String>) -> ModelError {
    ModelError::Mismatch { graph: graph.to_owned(), fault: fault.into() }
}

/// Checks that text encoders whose rows are put beside each other have as many rows.
fn check_lengths(kind: PipelineKind, text_encoders: &[TextEncoderGraph]) -> Result<(), ModelError> {
    let mut beside = text_encoders.iter().filter(|encoder| {
        encoder.facts.rows == RowUse::Beside && encoder.facts.length == TextLength::Tokenizer
    });
    let Some(first) = beside.next() else { return Ok(()) };
    let (own, folder) = (first.tokenizer.length, first.tokenizer_path.file_name().unwrap_or_default());
    match beside.find(|other| other.tokenizer.length != own) {
        None => Ok(()),
        Some(other) => Err(ModelError::Tokenizer(TokenizerError {
            path: other.tokenizer_path.join("tokenizer_config.json"),
            reason: format!(
                "model_max_length is {}, but that of {} is {own}, and {} puts the embeddings of both side by side, token by \
                 token; set both to one length (77 in the published models)",
                other.tokenizer.length,
                folder.display(),
                kind.title()
            ),
        })),
    }
}

/// How many layers every CLIP text encoder of a pipeline has to skip. The first one, the token embeddings, is none of them.
fn largest_clip_skip(text_encoders: &[TextEncoderGraph]) -> usize {
    let clip = text_encoders.iter().filter(|encoder| encoder.facts.model.is_clip());
    let skippable = |encoder: &TextEncoderGraph| {
        let kept = if encoder.facts.layer == LayerRule::Last { 2 } else { 3 };
        encoder.io.hidden.len().saturating_sub(kept)
    };
    clip.map(skippable).min().unwrap_or(0)
}

/// The number of tokens of the text encoder that takes as many as a job asks for, and whether the graphs fix it. Checks the
/// network's number of text rows.
fn sequence_length(
    bundle: &Bundle,
    kind: PipelineKind,
    text_encoders: &[TextEncoderGraph],
    signature: &Signature,
) -> Result<(usize, bool), ModelError> {
    let fixed = |role: Role| {
        let input = signature.tensors.iter().find(|input| input.role == role)?;
        input.shape.iter().rev().nth(1)?.length()
    };
    let rows = fixed(Role::Text).or(fixed(Role::TextIds));
    let wrong_rows = |rows: usize, given: String| {
        let fault = format!(
            "it takes {rows} tokens of text, but the text encoders give {given}; export the network with a dynamic \
             sequence length, or with that one"
        );
        mismatch(&bundle.graph, fault)
    };
    let has_rows_of_tokenizer = |encoder: &&TextEncoderGraph| {
        encoder.facts.has_rows() && encoder.facts.length == TextLength::Tokenizer
    };
    let clip = text_encoders.iter().find(has_rows_of_tokenizer).map_or(0, |encoder| encoder.tokenizer.length);
    let Some(default) = kind.facts().sequence_length() else {
        return match rows {
            Some(rows) if rows != clip => Err(wrong_rows(rows, clip.to_string())),
            _ => Ok((0, false)),
        };
    };
    let of_network =
        match rows.map(|rows| rows.checked_sub(clip).filter(|rows| *rows > 0).ok_or(rows)).transpose() {
            Ok(of_network) => of_network,
            Err(rows) => return Err(wrong_rows(rows, format!("{clip} and those of T5"))),
        };
    let encoder = text_encoders.iter().find(|encoder| encoder.facts.length.default().is_some());
    // An encoder that hides padding takes fewer tokens too.
    let of_encoder = encoder.filter(|encoder| encoder.facts.masking != Masking::Always);
    let of_encoder = of_encoder.and_then(|encoder| encoder.io.length);
    match (of_network, of_encoder) {
        (Some(network), Some(encoder)) if network != encoder => {
            Err(wrong_rows(network + clip, (encoder + clip).to_string()))
        }
        (network, encoder) => match network.or(encoder) {
            Some(length) => Ok((length, true)),
            None => Ok((default, false)),
        },
    }
}

/// Checks that the network takes embeddings of the width that the text encoders give.
fn check_widths(
    bundle: &Bundle,
    kind: PipelineKind,
    text_encoders: &[TextEncoderGraph],
    signature: &Signature,
    components: &LatentComponents,
) -> Result<(), ModelError> {
    let sum = |widths: &mut dyn Iterator<Item = Option<usize>>| widths.sum::<Option<usize>>();
    let beside =
        text_encoders.iter().filter(|encoder| !matches!(encoder.facts.rows, RowUse::Unused | RowUse::After));
    let mut text = sum(&mut beside.map(|encoder| encoder.io.width));
    if kind.facts().text_encoders.iter().any(|facts| facts.rows == RowUse::After) {
        let after = text_encoders.iter().find(|encoder| encoder.facts.rows == RowUse::After);
        let width = after.map_or(components.joint_attention_dim, |encoder| encoder.io.width);
        text = text.zip(width).map(|(beside, after)| beside.max(after));
    }
    let pooled = text_encoders.iter().filter(|encoder| encoder.facts.pooled.is_some());
    let pooled = sum(&mut pooled.map(|encoder| encoder.io.pooled_width));
    for (role, given, what) in
        [(Role::Text, text, "text embeddings"), (Role::Pooled, pooled, "pooled embeddings")]
    {
        let input = signature.tensors.iter().find(|input| input.role == role);
        let taken = input.and_then(|input| input.shape.last().and_then(Dim::length));
        if let Some((given, taken)) = given.zip(taken).filter(|(given, taken)| given != taken) {
            let fault = format!(
                "it takes {what} of width {taken}, but the text encoders give {given}: they are not of one model, so \
                 export the whole pipeline again"
            );
            return Err(mismatch(&bundle.graph, fault));
        }
    }
    Ok(())
}

/// Checks that the halves of an autoencoder take the sizes of each other, and of a network of a fixed size.
fn check_sizes(
    signature: &Signature,
    factor: usize,
    decoder: Option<&(PathBuf, AutoencoderIo)>,
    encoder: Option<&(PathBuf, AutoencoderIo)>,
) -> Result<(), ModelError> {
    let network = match signature.sample_shape[..] {
        [_, height, width] if !signature.dynamic_size => [Some(height), Some(width)],
        _ => [None; 2],
    };
    let decoded = decoder.map_or([None; 2], |(_, io)| io.size);
    let encoded = encoder.map_or([None; 2], |(_, io)| io.size.map(|side| side.map(|pixels| pixels / factor)));
    for (half, own, others) in [(decoder, decoded, [network; 2]), (encoder, encoded, [network, decoded])] {
        let differs = |other: &[Option<usize>; 2]| {
            own.iter().zip(other).any(|(own, other)| own.zip(*other).is_some_and(|(own, other)| own != other))
        };
        if let (Some((path, io)), Some(other)) = (half, others.iter().find(|other| differs(other))) {
            let fault = format!(
                "its input {} has the size {} (height×width) in latents, but the other graphs have {}; export them for one \
                 size, or with dynamic axes",
                io.input,
                in_words(own),
                in_words(*other)
            );
            return Err(mismatch(path, fault));
        }
    }
    Ok(())
}

fn in_words(size: [Option<usize>; 2]) -> String {
    let [height, width] = size.map(|side| side.map_or("?".to_owned(), |side| side.to_string()));
    format!("{height}×{width}")
}
