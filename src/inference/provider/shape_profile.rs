//! The shapes of a graph's inputs for which an engine is built or a CUDA graph is captured.

/// The range of input shapes that an engine must serve: an optimization profile in TensorRT's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShapeProfile {
    pub(crate) min: InputShapes,
    /// The shapes for which the engine is tuned.
    pub(crate) opt: InputShapes,
    pub(crate) max: InputShapes,
}

/// The name and shape of each input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InputShapes(pub(crate) Vec<(String, Vec<usize>)>);

impl ShapeProfile {
    /// The profile for the largest shapes only.
    pub(crate) fn fixed_to_max(&self) -> Self {
        Self { min: self.max.clone(), opt: self.max.clone(), max: self.max.clone() }
    }
}

impl std::fmt::Display for InputShapes {
    /// TensorRT's notation, `sample:1x1x28x28,timestep:1`. Scalars have no shape to choose and are left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inputs = self.0.iter().filter(|(_, shape)| !shape.is_empty());
        for (i, (name, shape)) in inputs.enumerate() {
            let axes: Vec<_> = shape.iter().map(usize::to_string).collect();
            write!(f, "{}{name}:{}", if i == 0 { "" } else { "," }, axes.join("x"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_written_as_tensorrt_reads_them() {
        let shapes = |batch: usize| {
            let shapes = [("sample", vec![batch, 9, 8, 8]), ("timestep", vec![]), ("txt_ids", vec![77, 3])];
            InputShapes(shapes.map(|(name, shape)| (name.to_owned(), shape)).into())
        };
        let profile = ShapeProfile { min: shapes(1), opt: shapes(2), max: shapes(4) };
        let written =
            |profile: &ShapeProfile| [&profile.min, &profile.opt, &profile.max].map(ToString::to_string);
        let expected = |batch: usize| format!("sample:{batch}x9x8x8,txt_ids:77x3");
        assert_eq!(written(&profile), [1, 2, 4].map(expected));
        assert_eq!(written(&profile.fixed_to_max()), [4, 4, 4].map(expected));
    }
}
