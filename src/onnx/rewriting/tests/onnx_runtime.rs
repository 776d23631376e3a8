//! Runs models on ONNX Runtime.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::Tensor;
use rten_onnx::onnx::{DataType, ModelProto};

/// The shape of each input by name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Evaluates a model on these inputs, whose numbers become integers where the graph takes integers. Returns the numbers of
/// the first output.
pub(super) fn run_on(model: &ModelProto, inputs: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<f32> {
    let mut builder = Session::builder(environment()).unwrap().with_intra_threads(1).unwrap();
    let mut session = builder.commit_from_memory(&model.write_buf().unwrap()).unwrap();
    let graph = model.graph.as_ref().unwrap();
    let inputs: Vec<_> = inputs
        .iter()
        .map(|(name, shape, values)| {
            let input = graph.input.iter().find(|input| input.name.as_ref() == Some(name)).unwrap();
            let tensor = input.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
            let value: SessionInputValue<'_> = match tensor.elem_type.unwrap() {
                DataType::INT64 => {
                    let ids = values.iter().map(|x| (x.abs() * 29.0) as i64).collect::<Vec<_>>();
                    Tensor::from_array((shape.clone(), ids)).unwrap().into()
                }
                _ => Tensor::from_array((shape.clone(), values.clone())).unwrap().into(),
            };
            (name.clone(), value)
        })
        .collect();
    let outputs = session.run(inputs).unwrap();
    outputs[0].try_extract_tensor::<f32>().unwrap().1.to_vec()
}

/// Evaluates a model on inputs that follow from its shapes. `read` gets the outputs.
pub(super) fn run<T>(model: &ModelProto, shapes: &Shapes, read: impl FnOnce(&SessionOutputs<'_>) -> T) -> T {
    let bytes = model.write_buf().unwrap();
    let mut builder = Session::builder(environment()).unwrap().with_intra_threads(1).unwrap();
    let mut session = builder.commit_from_memory(&bytes).unwrap();
    let graph = model.graph.as_ref().unwrap();
    let inputs = graph.input.iter().enumerate().map(|(seed, input)| {
        let name = input.name.clone().unwrap();
        let data_type = input.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().elem_type.unwrap();
        let value = tensor(&shapes[&name], data_type, seed);
        (name, value)
    });
    let inputs: Vec<_> = inputs.collect();
    read(&session.run(inputs).unwrap())
}

/// The numbers of the first output.
pub(super) fn first_output(model: &ModelProto, shapes: &Shapes) -> (Vec<i64>, Vec<f32>) {
    run(model, shapes, |outputs| {
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().unwrap();
        (shape.to_vec(), values.to_vec())
    })
}

fn tensor(shape: &[usize], data_type: DataType, seed: usize) -> SessionInputValue<'static> {
    let len: usize = shape.iter().product();
    // Numbers without a pattern that a permutation or an exchange of operands would keep.
    let float = |at: usize| ((at * 31 + seed * 17 + 7) as f32 * 12.9898).sin() * 2.0;
    let shape = shape.to_vec();
    match data_type {
        DataType::INT64 => {
            let values: Vec<_> = (0..len).map(|at| (at * 7 % 29) as i64).collect();
            Tensor::from_array((shape, values)).unwrap().into()
        }
        _ => Tensor::from_array((shape, (0..len).map(float).collect::<Vec<_>>())).unwrap().into(),
    }
}

fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let library = std::env::var_os("DENOISED_TEST_ONNXRUNTIME").expect("run tests/run");
        ort::init_from(library).unwrap().with_telemetry(false).build().unwrap()
    })
}
