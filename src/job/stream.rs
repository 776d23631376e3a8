//! A job that draws from each new picture on a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Attachment, Job, JobError, JobLimits, ModelCard, Request, RetainedTopic, shortened_id};
use crate::bundle::SampleKind;
use crate::image;
use crate::topic_name::topic_fault;

/// The longest `every_ms`: an hour.
pub(super) const MAX_EVERY_MS: u64 = 3_600_000;
/// The longest `silence_ms`: a day.
pub(super) const MAX_SILENCE_MS: u64 = 86_400_000;
const DEFAULT_SILENCE_MS: u64 = 10_000;

/// The topic whose pictures a job draws from, in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRequest {
    /// The topic. Each picture of the job that names it is replaced by the newest one; if none does, it is `image`.
    pub topic: String,
    /// The shortest time between the starts of two pictures in milliseconds, 0 to 3,600,000. Default: 0.
    pub every_ms: Option<u64>,
    /// After this many milliseconds without a picture the job fails, 1 to 86,400,000. Default: 10,000.
    pub silence_ms: Option<u64>,
}

/// A valid stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// The topic.
    pub topic: String,
    /// The shortest time between the starts of two pictures.
    pub every: Duration,
    /// The longest time without a picture.
    pub silence: Duration,
    /// The time limit, from the request's arrival.
    pub deadline: Option<Duration>,
}

impl Request {
    /// Validates `stream`, and writes its topic as `image` if no picture of the job names it. `None` without one.
    pub fn check_stream(&mut self) -> Result<Option<StreamSettings>, JobError> {
        let Some(StreamRequest { topic, every_ms, silence_ms }) = self.stream.clone() else {
            return Ok(None);
        };
        if let Some(fault) = topic_fault(&topic) {
            let message = format!("stream.topic is {:?}, but {fault}; name one topic", shortened_id(&topic));
            return Err(JobError::out_of_range("stream.topic", message));
        }
        let in_range = |field: &str, given: Option<u64>, default: u64, min: u64, max: u64| {
            let value = given.unwrap_or(default);
            if (min..=max).contains(&value) {
                return Ok(Duration::from_millis(value));
            }
            let message = format!("{field} is {value}, but must lie between {min} and {max}");
            Err(JobError::out_of_range(field, message))
        };
        let every = in_range("stream.every_ms", every_ms, 0, 0, MAX_EVERY_MS)?;
        let silence = in_range("stream.silence_ms", silence_ms, DEFAULT_SILENCE_MS, 1, MAX_SILENCE_MS)?;
        if let Some(count) = self.count.filter(|count| *count != 1) {
            let message =
                format!("count is {count}, but a stream draws one image of each picture; remove count");
            return Err(JobError::out_of_range("count", message));
        }
        let source = Attachment::Retained(RetainedTopic { topic: topic.clone() });
        if !self.attachments().any(|(_, picture)| *picture == source) {
            if self.image.is_some() {
                let message = format!(
                    "no picture of the job comes from stream.topic; write {{\"topic\": {topic:?}}} in place of image, or \
                     of the image of one of the controls"
                );
                return Err(JobError::out_of_range("stream.topic", message));
            }
            self.image = Some(source);
        }
        let deadline = self.deadline_ms.map(Duration::from_millis);
        Ok(Some(StreamSettings { topic, every, silence, deadline }))
    }

    /// Returns the request for one picture of the stream. A picture over `max_bytes` is an error.
    pub fn with_stream_picture(&self, picture: &Bytes, max_bytes: u64) -> Result<Self, JobError> {
        let mut request = self.clone();
        if let Some(stream) = request.stream.take() {
            request.deadline_ms = None;
            request.attach(&BTreeMap::from([(stream.topic, Ok(picture.clone()))]), max_bytes)?;
        }
        Ok(request)
    }

    /// Validates everything but the pictures of the stream, in whose place it takes a black one.
    pub fn check_without_picture(
        &self,
        models: &[Arc<ModelCard>],
        limits: JobLimits,
        random: impl Fn() -> u64,
    ) -> Result<Job, JobError> {
        let model = self.find_model(models)?;
        let (sample, shape) = (&model.bundle.manifest.sample, self.check_sizes(model, limits)?.image);
        let black = vec![sample.range[0]; shape.iter().product()];
        let picture = match sample.kind {
            SampleKind::Image => {
                image::to_image(&black, &shape, sample).and_then(|black| image::png(&black)).ok()
            }
            SampleKind::Points => None,
        };
        let picture = picture.ok_or_else(|| {
            let message = format!("{} draws no pictures of 1 or 3 channels; remove stream", model.name());
            JobError::out_of_range("stream", message)
        })?;
        self.with_stream_picture(&picture.into(), u64::MAX)?.check(models, limits, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Request {
        serde_json::from_str(json).unwrap()
    }

    fn topic(topic: &str) -> Attachment {
        Attachment::Retained(RetainedTopic { topic: topic.to_owned() })
    }

    #[test]
    fn the_topic_is_the_image_unless_another_picture_names_it() {
        let mut own = request(r#"{"stream": {"topic": "camera"}, "deadline_ms": 9}"#);
        let settings = own.check_stream().unwrap().unwrap();
        let expected = StreamSettings {
            topic: "camera".to_owned(),
            every: Duration::ZERO,
            silence: Duration::from_secs(10),
            deadline: Some(Duration::from_millis(9)),
        };
        assert_eq!((settings, own.image), (expected, Some(topic("camera"))));
        let mut control = request(
            r#"{"stream": {"topic": "camera", "every_ms": 500, "silence_ms": 1}, "controls": [{"image": {"topic": "camera"}}]}"#,
        );
        let settings = control.check_stream().unwrap().unwrap();
        assert_eq!((settings.every.as_millis(), settings.silence.as_millis()), (500, 1));
        assert_eq!(control.image, None);
        assert_eq!(Request::default().check_stream(), Ok(None));
    }

    #[test]
    fn a_picture_replaces_the_topic_and_only_others_are_fetched() {
        let mut live = request(
            r#"{"stream": {"topic": "camera"}, "image": {"topic": "camera"}, "mask": {"topic": "mask"}, "deadline_ms": 9}"#,
        );
        live.check_stream().unwrap();
        let mask = BTreeMap::from([("mask".to_owned(), Ok(Bytes::from_static(b"white")))]);
        assert_eq!(live.attach(&BTreeMap::new(), 9).unwrap(), ["mask"]);
        assert!(live.attach(&mask, 9).unwrap().is_empty());
        assert_eq!(live.image, Some(topic("camera")));
        let picture = live.with_stream_picture(&Bytes::from_static(b"picture"), 9).unwrap();
        assert_eq!(picture.image, Some(Attachment::from_bytes(b"picture")));
        assert_eq!(picture.mask, Some(Attachment::from_bytes(b"white")));
        assert_eq!((picture.stream, picture.deadline_ms), (None, None));
        let error = live.with_stream_picture(&Bytes::from_static(b"a large picture"), 9).unwrap_err();
        assert_eq!(error.message, "image: camera: 15 bytes; at most 9 are taken (limits.payload)");
    }

    #[test]
    fn a_faulty_stream_is_refused_by_its_field() {
        for (json, field, message) in [
            (
                r#"{"stream": {"topic": ""}}"#,
                "stream.topic",
                "stream.topic is \"\", but it is empty; name one topic",
            ),
            (
                r#"{"stream": {"topic": "a/+"}}"#,
                "stream.topic",
                "stream.topic is \"a/+\", but it has a wildcard, + or #; name one topic",
            ),
            (
                r#"{"stream": {"topic": "a", "every_ms": 3600001}}"#,
                "stream.every_ms",
                "stream.every_ms is 3600001, but must lie between 0 and 3600000",
            ),
            (
                r#"{"stream": {"topic": "a", "silence_ms": 0}}"#,
                "stream.silence_ms",
                "stream.silence_ms is 0, but must lie between 1 and 86400000",
            ),
            (
                r#"{"stream": {"topic": "a"}, "count": 2}"#,
                "count",
                "count is 2, but a stream draws one image of each picture; remove count",
            ),
            (
                r#"{"stream": {"topic": "a"}, "image": {"topic": "b"}}"#,
                "stream.topic",
                "no picture of the job comes from stream.topic; write {\"topic\": \"a\"} in place of image, or of the image \
                 of one of the controls",
            ),
        ] {
            let error = request(json).check_stream().unwrap_err();
            assert_eq!((error.field.as_deref(), error.message.as_str()), (Some(field), message));
        }
    }
}
