//! A file with the matrices of a LoRA for many layers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::{SafeTensorError, SafeTensors};

use super::error::LoraError;
use super::factors::Factors;
use super::key::{Component, Key, unserved_kind};
use super::low_rank::LowRank;
use super::metadata::AdapterMetadata;
use super::module_names::{layers_per_block, names};

/// A layer of a graph that takes the two matrices of a LoRA as inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptedLayer {
    /// Its name as diffusers has it, such as `mid_block.attentions.0.proj_in`.
    pub module: String,
    /// Values of its input; of a convolution of k×k, its channels · k · k.
    pub inputs: usize,
    /// Values of its output.
    pub outputs: usize,
}

/// A LoRA file for a model: for each layer of its graphs the product, where the file has one.
#[derive(Debug, Default, PartialEq)]
pub struct Matched {
    /// In the order of the layers that were given for a component.
    pub layers: BTreeMap<Component, Vec<Option<LowRank>>>,
}

/// The tensors of a LoRA file.
#[derive(Debug)]
pub struct Adapter<'a> {
    factors: BTreeMap<(Component, String), Factors<'a>>,
    metadata: AdapterMetadata,
}

impl<'a> Adapter<'a> {
    /// Reads the contents of a safetensors file.
    ///
    /// # Errors
    ///
    /// The file is incomplete, or holds something else than LoRA, LoHa or LoKr.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, LoraError> {
        let unreadable = |error: SafeTensorError| LoraError::Unreadable(unreadable(&error));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let metadata = AdapterMetadata::read(header.metadata().as_ref());
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let mut factors: BTreeMap<(Component, String), Factors<'a>> = BTreeMap::new();
        let mut others = BTreeSet::new();
        for (name, tensor) in tensors.tensors() {
            match Key::parse(&name) {
                Some(key) => {
                    let layer = factors.entry((key.component, key.module)).or_default();
                    if !layer.insert(key.part, &name, tensor) {
                        let reason = "another tensor is the same part of the same layer".to_owned();
                        return Err(LoraError::Shapes { key: name, reason });
                    }
                }
                None => {
                    others.insert(name);
                }
            }
        }
        refuse_others(&others, factors.is_empty())?;
        Ok(Self { factors, metadata })
    }

    /// The products for the layers of a model's graphs.
    ///
    /// # Errors
    ///
    /// A layer of the file is not among them or has other lengths, or its tensors do not fit together. `limit` bounds the
    /// rank.
    pub fn matched(
        &self,
        graphs: &[(Component, &[AdaptedLayer])],
        limit: usize,
    ) -> Result<Matched, LoraError> {
        let mut used = BTreeSet::new();
        let mut result = Matched::default();
        for (component, layers) in graphs {
            let per_block = layers_per_block(layers.iter().map(|layer| layer.module.as_str()));
            let matched: Result<Vec<_>, LoraError> = layers
                .iter()
                .map(|layer| {
                    let (own, original) = names(&layer.module, per_block);
                    let candidates = [Some(own), original];
                    // Where a file has both, diffusers reads its own names.
                    let keys = candidates.into_iter().flatten().map(|module| (*component, module));
                    let present: Vec<_> = keys.filter(|key| self.factors.contains_key(key)).collect();
                    let product = present.first().map(|key| self.product(key, layer, limit)).transpose();
                    used.extend(present);
                    product
                })
                .collect();
            result.layers.insert(*component, matched?);
        }
        self.refuse_unknown(&used)?;
        Ok(result)
    }

    fn product(
        &self,
        key: &(Component, String),
        layer: &AdaptedLayer,
        limit: usize,
    ) -> Result<LowRank, LoraError> {
        let scale = |rank| self.metadata.scale(key.0, &key.1, rank);
        let product = self.factors[key].low_rank(scale, |rank| check_rank(&layer.module, rank, limit))?;
        if (product.inputs, product.outputs) != (layer.inputs, layer.outputs) {
            return Err(LoraError::OtherModel {
                layer: layer.module.clone(),
                found_inputs: product.inputs,
                found_outputs: product.outputs,
                inputs: layer.inputs,
                outputs: layer.outputs,
            });
        }
        Ok(product)
    }

    /// Refuses layers that no graph has inputs for.
    fn refuse_unknown(&self, used: &BTreeSet<(Component, String)>) -> Result<(), LoraError> {
        let mut unknown = self.factors.iter().filter(|(key, _)| !used.contains(key)).peekable();
        let Some((key, factors)) = unknown.peek() else { return Ok(()) };
        let (component, first) = (key.0, factors.name().to_owned());
        Err(LoraError::UnknownLayers {
            total: self.factors.len(),
            first,
            component,
            unknown: unknown.count(),
        })
    }
}

/// Why a file cannot be read, without the words of the library.
fn unreadable(error: &SafeTensorError) -> String {
    use SafeTensorError::{
        HeaderTooLarge, HeaderTooSmall, InvalidHeader, InvalidHeaderLength, MetadataIncompleteBuffer,
    };
    match error {
        HeaderTooSmall => "it ends before its header".to_owned(),
        HeaderTooLarge | InvalidHeader(_) | InvalidHeaderLength => {
            "it does not begin with a header".to_owned()
        }
        MetadataIncompleteBuffer => "it has another number of bytes than its header says".to_owned(),
        other => other.to_string(),
    }
}

/// Refuses a rank above the limit.
pub(crate) fn check_rank(layer: &str, rank: usize, limit: usize) -> Result<(), LoraError> {
    if rank <= limit { Ok(()) } else { Err(LoraError::Rank { layer: layer.to_owned(), rank, limit }) }
}

/// Refuses tensors that belong to no LoRA.
fn refuse_others(others: &BTreeSet<String>, is_all: bool) -> Result<(), LoraError> {
    let kinds = others.iter().filter_map(|name| unserved_kind(name).map(|kind| (name, kind)));
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut first = None;
    for (name, (kind, hint)) in kinds {
        *counts.entry(kind).or_default() += 1;
        first.get_or_insert((name, kind, hint));
    }
    if let Some((name, kind, hint)) = first {
        return Err(LoraError::UnservedKind { kind, key: name.clone(), count: counts[kind], hint });
    }
    match others.first() {
        Some(name) if !is_all => Err(LoraError::UnservedKind {
            kind: "no kind of LoRA that is known",
            key: name.clone(),
            count: others.len(),
            hint: "Save the LoRA again with diffusers (save_lora_weights)",
        }),
        first if is_all => {
            Err(LoraError::NoLora { first: first.cloned().unwrap_or_else(|| "none".to_owned()) })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
