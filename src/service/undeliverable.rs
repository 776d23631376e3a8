//! Reports messages that the broker never accepts.
//!
//! The requester gets one error for each kind of message of a job, small enough for the broker, and one for each response
//! topic that the broker denies. An error that cannot be delivered is never reported by another error, so that reports
//! cannot feed themselves.

use std::collections::VecDeque;

use super::responses::{Responses, is_copy, property};
use crate::job::{ErrorCode, JobError};
use crate::mqtt::Message;
use crate::mqtt::client::UndeliverableReason;

/// How many reports are remembered.
const MAX_REPORTED: usize = 1024;

/// Reports undeliverable messages, and remembers which were reported.
#[derive(Debug, Default)]
pub(super) struct UndeliverableReports(VecDeque<String>);

impl UndeliverableReports {
    /// Returns the messages that report this undeliverable one.
    pub(super) fn report(
        &mut self,
        responses: &Responses,
        message: &Message,
        reason: &UndeliverableReason,
    ) -> Vec<Message> {
        let error = describe(message, reason);
        let kind = property(message, "type");
        if kind == Some("error") {
            return retry_error(responses, message, reason, &error).into_iter().collect();
        }
        let id = property(message, "id");
        let key = match reason {
            // Home Assistant's announcements share their fate.
            _ if kind == Some("discovery") => "discovery".to_owned(),
            UndeliverableReason::TooLarge(_) | UndeliverableReason::TooLargeForBroker => {
                format!("{} {kind:?} {id:?}", message.topic)
            }
            // The broker denies the topic, whatever the message is.
            UndeliverableReason::Rejected(_) => format!("{} {id:?}", message.topic),
        };
        if !self.is_first(&key) {
            log::debug!("{error}");
            return Vec::new();
        }
        let Some(id) = id else {
            log::error!("{error}");
            return Vec::new();
        };
        log::error!("job {id}: {error}");
        let mut own = responses.error(id, &error, None);
        let limit = match *reason {
            UndeliverableReason::TooLarge(limit) => limit,
            UndeliverableReason::TooLargeForBroker => message.packet_size(),
            UndeliverableReason::Rejected(_) => return own,
        };
        if is_copy(message) {
            // The daemon's own topics are not affected: the answer has already been published there.
            let correlation = message.correlation_data.as_ref().map(|data| data.to_vec());
            let copy = own.first().map(|error| error.for_reply(&message.topic, correlation));
            if let Some(copy) = copy.and_then(|copy| responses.fit_error(copy, limit)) {
                return vec![copy];
            }
        }
        let fitted = own.pop().and_then(|error| responses.fit_error(error, limit));
        if fitted.is_none() {
            log::error!("an error for job {id} does not fit into {limit} bytes either; it is not sent");
        }
        fitted.into_iter().collect()
    }

    fn is_first(&mut self, key: &str) -> bool {
        if self.0.iter().any(|reported| reported == key) {
            return false;
        }
        self.0.push_back(key.to_owned());
        if self.0.len() > MAX_REPORTED {
            self.0.pop_front();
        }
        true
    }
}

/// An error that is too large is sent again in a shorter form, once for each new limit of the broker.
fn retry_error(
    responses: &Responses,
    message: &Message,
    reason: &UndeliverableReason,
    error: &JobError,
) -> Option<Message> {
    let shorter = match reason {
        UndeliverableReason::TooLarge(limit) => responses.fit_error(message.clone(), *limit),
        // Until one is accepted, or is as short as it can be.
        UndeliverableReason::TooLargeForBroker => {
            responses.fit_error(message.clone(), message.packet_size() * 3 / 4)
        }
        UndeliverableReason::Rejected(_) => None,
    };
    match &shorter {
        Some(shorter) => log::warn!("{error}; it is shortened to {} bytes", shorter.packet_size()),
        None => log::error!("{error}; it is not sent"),
    }
    shorter
}

/// The error of a message that the broker never accepts.
fn describe(message: &Message, reason: &UndeliverableReason) -> JobError {
    let (size, topic) = (message.packet_size(), &message.topic);
    let kind = property(message, "type").unwrap_or(topic);
    let advice = match kind {
        "image" => ", or request a smaller image",
        "result" => ", or request fewer images",
        "preview" => ", or remove preview_every",
        _ => "",
    };
    match reason {
        UndeliverableReason::TooLargeForBroker => {
            let message = format!(
                "a message of {size} bytes ({kind}) is larger than the broker accepts; raise its limit of the \
                 message size (message_size_limit of mosquitto){advice}"
            );
            JobError::new(ErrorCode::OutOfRange, message)
        }
        UndeliverableReason::TooLarge(limit) => {
            let message = format!(
                "a message of {size} bytes ({kind}) is larger than the {limit} that the broker and mqtt.max_packet \
                 allow; raise that limit{advice}"
            );
            JobError::new(ErrorCode::OutOfRange, message)
        }
        UndeliverableReason::Rejected(reason) if kind == "discovery" => JobError::new(
            ErrorCode::Denied,
            format!(
                "Home Assistant does not see this daemon, because the broker does not allow it to publish on {topic} \
                 ({reason}); allow it in the broker's access list, as docs/security.md shows"
            ),
        ),
        UndeliverableReason::Rejected(reason) => JobError::new(
            ErrorCode::Denied,
            format!(
                "the broker does not allow this daemon to publish on {topic} ({reason}); use another response \
                 topic, or allow this one in the broker's access list"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublishQos;
    use crate::mqtt::Topics;

    const LONG_ID: &str = "camera-front-door-0000000000000000000000000000000000000007";

    fn responses() -> Responses {
        Responses::new(Topics::new("denoised/board"), PublishQos::AtLeastOnce)
    }

    fn message(kind: &'static str, id: &str, size: usize) -> Message {
        Message {
            user_properties: vec![("type".into(), kind.to_owned()), ("id".into(), id.to_owned())],
            ..Message::new(format!("denoised/board/{kind}/{id}"), vec![b' '; size])
        }
    }

    fn body(message: &Message) -> serde_json::Value {
        serde_json::from_slice(&message.payload).unwrap()
    }

    #[test]
    fn an_error_about_an_error_followed_without_end() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        for limit in [350, 300, 256, 220, 100, 20] {
            let too_large = UndeliverableReason::TooLarge(limit);
            let mut pending = vec![message("result", &format!("{LONG_ID}{limit}"), 2000)];
            let mut reported = 0;
            while let Some(message) = pending.pop() {
                pending.extend(reports.report(&responses, &message, &too_large));
                assert!(pending.iter().all(|message| message.packet_size() <= limit));
                reported += pending.len();
                // The broker accepts what fits.
                pending.clear();
            }
            assert_eq!(reported, usize::from(limit > 200), "{limit}");
            let error =
                &responses.error(LONG_ID, &JobError::new(ErrorCode::Engine, "x".repeat(400)), None)[0];
            let shorter = reports.report(&responses, error, &too_large);
            assert_eq!(shorter.len(), usize::from(limit > 200), "{limit}");
            if let Some(shorter) = shorter.first() {
                assert!(shorter.packet_size() <= limit);
                let body = body(shorter);
                assert_eq!((body["id"].as_str(), body["code"].as_str()), (Some(LONG_ID), Some("engine")));
                assert!(body["message"].as_str().unwrap().ends_with('…'), "{body}");
                let has_type = property(shorter, "type").is_some();
                assert_eq!((limit, has_type), (limit, limit > 256));
            }
        }
    }

    #[test]
    fn an_error_above_an_unknown_limit_is_shortened_until_that_is_impossible() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        let error = JobError::new(ErrorCode::Engine, "x".repeat(2000));
        let mut pending = responses.error(LONG_ID, &error, None);
        let mut sizes = Vec::new();
        while let Some(message) = pending.pop() {
            sizes.push(message.packet_size());
            pending = reports.report(&responses, &message, &UndeliverableReason::TooLargeForBroker);
        }
        assert!(sizes.len() > 3 && sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    }

    #[test]
    fn each_kind_of_message_of_a_job_is_reported_once() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        let mut report = |kind, id| {
            let reason = UndeliverableReason::TooLarge(1000);
            reports.report(&responses, &message(kind, id, 2000), &reason).len()
        };
        let reported: Vec<_> =
            [("preview", "a"), ("preview", "a"), ("preview", "b"), ("image", "a"), ("image", "a")]
                .map(|(kind, id)| report(kind, id))
                .into();
        assert_eq!(reported, [1, 0, 1, 1, 0]);
        // The state belongs to no job.
        let state = Message::new("denoised/board/state".to_owned(), vec![b' '; 2000]);
        let reason = UndeliverableReason::TooLarge(1000);
        assert_eq!(reports.report(&responses, &state, &reason), []);
    }

    #[test]
    fn announcements_to_home_assistant_that_are_denied_are_logged_once_and_answered_to_nobody() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        let announcement = |entity: &str| Message {
            user_properties: vec![("type".into(), "discovery".to_owned())],
            ..Message::new(format!("homeassistant/image/denoised_board/{entity}/config"), "{}")
        };
        let reason = UndeliverableReason::Rejected("not authorized".to_owned());
        for entity in ["picture", "preview"] {
            assert_eq!(reports.report(&responses, &announcement(entity), &reason), []);
        }
        assert_eq!(reports.0, ["discovery"]);
        let error = describe(&announcement("picture"), &reason);
        assert!(
            error.message.starts_with("Home Assistant does not see this daemon, because the broker"),
            "{error}"
        );
    }

    #[test]
    fn a_copy_that_is_too_large_is_reported_where_it_was_to_go() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        let copy = message("result", "a", 2000).for_reply("answers/me", Some(b"c-42".to_vec()));
        let reports = reports.report(&responses, &copy, &UndeliverableReason::TooLarge(1000));
        let [error] = reports.as_slice() else { panic!("{reports:?}") };
        assert_eq!(
            (error.topic.as_str(), error.correlation_data.as_deref()),
            ("answers/me", Some(&b"c-42"[..]))
        );
        assert_eq!(property(error, "type"), Some("error"));
        assert!(body(error)["message"].as_str().unwrap().contains("request fewer images"));
    }

    #[test]
    fn an_error_that_the_broker_denies_is_not_reported() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        let denied = UndeliverableReason::Rejected("NotAuthorized".to_owned());
        let error = message("error", "a", 100).for_reply("answers/me", None);
        assert_eq!(reports.report(&responses, &error, &denied), []);
        let image = message("image", "a", 100).for_reply("answers/me", None);
        let reports = reports.report(&responses, &image, &denied);
        assert_eq!(reports.iter().map(|m| m.topic.as_str()).collect::<Vec<_>>(), ["denoised/board/error/a"]);
    }

    /// The image and the result were reported with the same error each.
    #[test]
    fn a_denied_response_topic_was_reported_twice() {
        let (responses, mut reports) = (responses(), UndeliverableReports::default());
        let denied = UndeliverableReason::Rejected("not authorized".to_owned());
        let mut report = |kind, id, topic| {
            let copy = message(kind, id, 100).for_reply(topic, None);
            reports.report(&responses, &copy, &denied).len()
        };
        assert_eq!(report("image", "a", "answers/me"), 1);
        assert_eq!(report("result", "a", "answers/me"), 0);
        assert_eq!((report("image", "b", "answers/me"), report("result", "a", "answers/other")), (1, 1));
    }
}
