//! Selects the first execution provider that works.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::ENGINE;
use super::messages::message;
use crate::inference::backend::RejectedProvider;
use crate::inference::error::{EngineError, EvaluationError, ProviderFailure};
use crate::inference::load_advice::Advice;
use crate::inference::options::EngineOptions;
use crate::inference::provider::{Policy, Provider};

/// Why there is no session on a provider.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// The provider does not work. Another one may.
    Provider(ProviderFailure),
    /// The first evaluation failed. Another provider may succeed.
    Evaluation(EvaluationError),
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
            Self::Evaluation(error) => error.to_string(),
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

/// The providers that are left to be tried, and those that do not work.
pub(super) struct Selection {
    remaining: VecDeque<Provider>,
    rejected: Vec<(Provider, ProviderFailure)>,
    policy: Policy,
    graph: PathBuf,
}

impl Selection {
    pub(super) fn new(
        providers: impl IntoIterator<Item = Provider>,
        options: &EngineOptions,
        graph: &Path,
    ) -> Self {
        let remaining = providers.into_iter().collect();
        Self { remaining, rejected: Vec::new(), policy: options.policy, graph: graph.to_owned() }
    }

    /// Tries the providers that are left, in order, until one can be opened.
    pub(super) fn open_next<T>(
        &mut self,
        advice: impl Fn(&str) -> Advice,
        mut attempt: impl FnMut(Provider) -> Result<T, AttemptError>,
    ) -> Result<T, EngineError> {
        while let Some(provider) = self.remaining.pop_front() {
            match attempt(provider) {
                Ok(opened) => return Ok(opened),
                Err(error) => self.reject(provider, error, &advice)?,
            }
        }
        let (provider, failure) = self.rejected.pop().unwrap_or_else(|| {
            (Provider::Cpu, ProviderFailure::Failed("[engine] providers names no provider".to_owned()))
        });
        Err(EngineError::NoProvider { provider, failure })
    }

    /// Puts a provider in front of those that are left.
    pub(super) fn try_again(&mut self, provider: Provider) {
        self.remaining.push_front(provider);
    }

    /// Records that a provider does not work. If it is required, that is an error, as is a fault of anything else: of the
    /// graph, by the `advice`, or of a file.
    pub(super) fn reject(
        &mut self,
        provider: Provider,
        error: AttemptError,
        advice: impl Fn(&str) -> Advice,
    ) -> Result<(), EngineError> {
        let graph = || self.graph.clone();
        let failure = match error {
            AttemptError::Engine(error) => return Err(error),
            AttemptError::Evaluation(error) => ProviderFailure::Failed(error.to_string()),
            AttemptError::Provider(failure) => {
                let Advice { text: hint, concerns_graph } = advice(&failure.to_string());
                if provider == Provider::Cpu || concerns_graph {
                    let reason = failure.to_string().trim_end_matches('.').to_owned();
                    return Err(EngineError::Load { engine: ENGINE, graph: graph(), reason, hint });
                }
                failure
            }
        };
        match self.policy {
            Policy::Required => Err(EngineError::Provider { provider, failure }),
            Policy::Preferred => {
                log::warn!("the execution provider {provider} does not work here: {failure}");
                self.rejected.push((provider, failure));
                Ok(())
            }
        }
    }

    /// The providers that do not work.
    pub(super) fn into_rejected(self) -> Vec<RejectedProvider> {
        let rejected = self.rejected.into_iter().map(|(provider, failure)| RejectedProvider {
            provider: provider.to_string(),
            reason: failure.to_string(),
        });
        rejected.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Selects between CUDA, whose attempt fails with `error`, and the CPU, which works. Returns the rejected providers with
    /// those that were tried.
    fn select(
        policy: Policy,
        error: impl Fn() -> AttemptError,
    ) -> (Result<Vec<RejectedProvider>, EngineError>, Vec<Provider>) {
        let options = EngineOptions { policy, ..EngineOptions::default() };
        let mut tried = Vec::new();
        let advice =
            |reason: &str| Advice { text: "Copy it".to_owned(), concerns_graph: reason == "damaged" };
        let mut selection =
            Selection::new([Provider::Cuda, Provider::Cpu], &options, Path::new("model.onnx"));
        let selected = selection.open_next(advice, |provider| {
            tried.push(provider);
            if provider == Provider::Cpu { Ok(()) } else { Err(error()) }
        });
        (selected.map(|()| selection.into_rejected()), tried)
    }

    #[test]
    fn a_provider_that_does_not_work_gives_way_to_the_next_one_unless_it_is_required() {
        let failure = || AttemptError::provider("x.cc:1 f() [ONNXRuntimeError] : 1 : FAIL : no libcublas");
        let (selected, tried) = select(Policy::Preferred, failure);
        let rejected = RejectedProvider { provider: "cuda".to_owned(), reason: "no libcublas".to_owned() };
        assert_eq!(selected.unwrap(), [rejected]);
        assert_eq!(tried, [Provider::Cuda, Provider::Cpu]);
        let (selected, tried) = select(Policy::Required, failure);
        assert!(matches!(selected, Err(EngineError::Provider { provider: Provider::Cuda, .. })));
        assert_eq!(tried, [Provider::Cuda]);
    }

    /// The advice was to set the policy that was set.
    #[test]
    fn without_another_provider_the_advice_is_to_add_one() {
        let (options, failure) = (EngineOptions::default(), || AttemptError::provider("no libcublas"));
        let mut selection = Selection::new([Provider::Cuda], &options, Path::new("model.onnx"));
        let advice = |_: &str| Advice { text: String::new(), concerns_graph: false };
        let error = selection.open_next(advice, |_| Err::<(), _>(failure())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of [engine] providers works here; cuda, the last of them: no libcublas. Add \"cpu\" to [engine] \
             providers to let the processor serve"
        );
    }

    #[test]
    fn a_provider_is_tried_again_before_the_next_one() {
        let options = EngineOptions::default();
        let mut selection =
            Selection::new([Provider::Cuda, Provider::Cpu], &options, Path::new("model.onnx"));
        let advice = |_: &str| Advice { text: String::new(), concerns_graph: false };
        let open = |selection: &mut Selection| selection.open_next(advice, Ok).unwrap();
        assert_eq!(open(&mut selection), Provider::Cuda);
        selection.try_again(Provider::Cuda);
        assert_eq!([open(&mut selection), open(&mut selection)], [Provider::Cuda, Provider::Cpu]);
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
