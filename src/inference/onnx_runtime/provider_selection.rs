//! Selects the first execution provider that works.

use std::path::Path;

use super::ENGINE;
use super::messages::message;
use crate::inference::backend::RejectedProvider;
use crate::inference::error::{EngineError, EvaluationError, ProviderFailure};
use crate::inference::graph_source::LoadedSession;
use crate::inference::load_advice::Advice;
use crate::inference::options::EngineOptions;
use crate::inference::provider::{Policy, Provider};

/// Why there is no session on a provider.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// The provider does not work. Another one may.
    Provider(ProviderFailure),
    /// The first evaluation failed. Another provider may succeed.
    Warmup(EvaluationError),
    /// Loading failed for a reason that has nothing to do with the provider.
    Engine(EngineError),
}

impl AttemptError {
    /// A failure of the provider, with the message in an error of ONNX Runtime.
    pub(super) fn provider(error: impl std::fmt::Display) -> Self {
        Self::Provider(ProviderFailure::Failed(message(&error.to_string())))
    }

    /// The message of the error.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Provider(failure) => failure.to_string(),
            Self::Warmup(error) => error.to_string(),
            Self::Engine(error) => error.to_string(),
        }
    }

    /// A file or directory that cannot be used.
    pub(super) fn io(
        operation: &'static str,
        path: &Path,
        hint: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Engine(EngineError::Io { operation, path: path.to_owned(), error, hint })
    }
}

impl<R> From<ort::Error<R>> for AttemptError {
    fn from(error: ort::Error<R>) -> Self {
        Self::provider(error)
    }
}

impl From<EvaluationError> for AttemptError {
    fn from(error: EvaluationError) -> Self {
        Self::Warmup(error)
    }
}

/// Tries the providers in order. If one does not work, the policy determines whether the next is tried. Any other error
/// ends the selection, as does a failure whose `advice` concerns the graph.
pub(super) fn first_working(
    options: &EngineOptions,
    graph: &Path,
    advice: impl Fn(&str) -> Advice,
    mut attempt: impl FnMut(Provider) -> Result<LoadedSession, AttemptError>,
) -> Result<LoadedSession, EngineError> {
    let mut rejected: Vec<(Provider, ProviderFailure)> = Vec::new();
    for &provider in &options.providers {
        let failure = match attempt(provider) {
            Ok(mut loaded) => {
                let rejected = rejected.into_iter().map(|(provider, failure)| RejectedProvider {
                    provider: provider.to_string(),
                    reason: failure.to_string(),
                });
                loaded.backend.rejected_providers = rejected.collect();
                return Ok(loaded);
            }
            Err(AttemptError::Engine(error)) => return Err(error),
            Err(AttemptError::Warmup(error)) if provider == Provider::Cpu => {
                return Err(EngineError::Warmup { graph: graph.to_owned(), error });
            }
            Err(AttemptError::Warmup(error)) => ProviderFailure::Failed(error.to_string()),
            Err(AttemptError::Provider(failure)) => {
                let Advice { text: hint, concerns_graph } = advice(&failure.to_string());
                if provider == Provider::Cpu || concerns_graph {
                    let reason = failure.to_string().trim_end_matches('.').to_owned();
                    return Err(EngineError::Load { engine: ENGINE, graph: graph.to_owned(), reason, hint });
                }
                failure
            }
        };
        match options.policy {
            Policy::Required => return Err(EngineError::Provider { provider, failure }),
            Policy::Preferred => {
                log::warn!("the execution provider {provider} does not work here: {failure}");
                rejected.push((provider, failure));
            }
        }
    }
    let (provider, failure) = rejected.pop().unwrap_or_else(|| {
        (Provider::Cpu, ProviderFailure::Failed("[engine] providers names no provider".to_owned()))
    });
    Err(EngineError::Provider { provider, failure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::backend::Backend;
    use crate::inference::session::{Input, Session};
    use crate::tensor::GraphIo;

    struct NoSession(GraphIo);

    impl Session for NoSession {
        fn graph(&self) -> &GraphIo {
            &self.0
        }

        fn run_all(
            &mut self,
            _: &[Input<'_>],
            _: &[&str],
            _: &mut [Vec<f32>],
        ) -> Result<Vec<Vec<usize>>, EvaluationError> {
            Ok(Vec::new())
        }
    }

    /// Selects between CUDA, whose attempt fails with `error`, and the CPU, which works. Returns the result with the
    /// providers that were tried.
    fn select(
        policy: Policy,
        error: impl Fn() -> AttemptError,
    ) -> (Result<LoadedSession, EngineError>, Vec<Provider>) {
        let options = EngineOptions {
            providers: vec![Provider::Cuda, Provider::Cpu],
            policy,
            ..EngineOptions::default()
        };
        let mut tried = Vec::new();
        let advice =
            |reason: &str| Advice { text: "Copy it".to_owned(), concerns_graph: reason == "damaged" };
        let selected = first_working(&options, Path::new("model.onnx"), advice, |provider| {
            tried.push(provider);
            match provider {
                Provider::Cpu => Ok(LoadedSession {
                    session: Box::new(NoSession(GraphIo::default())),
                    backend: Backend::new(ENGINE, "1".to_owned(), provider.to_string()),
                }),
                _ => Err(error()),
            }
        });
        (selected, tried)
    }

    #[test]
    fn a_provider_that_does_not_work_gives_way_to_the_next_one_unless_it_is_required() {
        let failure = || AttemptError::provider("x.cc:1 f() [ONNXRuntimeError] : 1 : FAIL : no libcublas");
        let (selected, tried) = select(Policy::Preferred, failure);
        let rejected = RejectedProvider { provider: "cuda".to_owned(), reason: "no libcublas".to_owned() };
        assert_eq!(selected.unwrap().backend.rejected_providers, [rejected]);
        assert_eq!(tried, [Provider::Cuda, Provider::Cpu]);
        let (selected, tried) = select(Policy::Required, failure);
        assert!(matches!(selected, Err(EngineError::Provider { provider: Provider::Cuda, .. })));
        assert_eq!(tried, [Provider::Cuda]);
    }

    #[test]
    fn a_fault_of_the_graph_is_no_failure_of_the_provider() {
        for policy in [Policy::Preferred, Policy::Required] {
            let (selected, tried) = select(policy, || AttemptError::provider("damaged"));
            let Err(error) = selected else { panic!("another provider was used") };
            assert_eq!(error.to_string(), "onnxruntime cannot load model.onnx: damaged. Copy it");
            assert_eq!(tried, [Provider::Cuda]);
        }
    }

    #[test]
    fn an_io_error_is_no_failure_of_the_provider() {
        let full = || {
            let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
            AttemptError::io("create a directory in", Path::new("/tmp"), "Make room")(error)
        };
        for policy in [Policy::Preferred, Policy::Required] {
            let (selected, tried) = select(policy, full);
            let Err(error @ EngineError::Io { .. }) = selected else { panic!("another provider was used") };
            assert_eq!(error.to_string(), "cannot create a directory in /tmp: no storage space. Make room");
            assert_eq!(tried, [Provider::Cuda]);
        }
    }
}
