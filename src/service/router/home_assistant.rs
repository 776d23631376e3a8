//! Passes messages and events between the router and Home Assistant's device.

use tokio::time::Instant;

use super::Router;
use crate::config::Config;
use crate::home_assistant::{
    self, DRAWN_ID_PREFIX, Device, HomeAssistant, Output, RECORD_NAME, Surroundings,
};
use crate::job::{Job, JobError};
use crate::mqtt::Topics;
use crate::mqtt::client::Incoming;
use crate::pipeline::JobEvent;
use crate::service::effects::JobEnd;
use crate::service::held_commands::HeldCommand;
use crate::service::status::Phase;
use crate::service::worker::EncodedImage;
use crate::spool::{Change, CommandDigest, SpoolCommand};

impl Router {
    /// Adds the device that Home Assistant sees, or removes that of an earlier run.
    pub(in crate::service) fn open_home_assistant(
        &mut self,
        config: &Config,
        topics: Topics,
        has_thermal: bool,
    ) {
        let record = self.spool.value(RECORD_NAME);
        if !config.home_assistant.enabled {
            let removal = home_assistant::removal(&topics, record);
            return self.apply_home_assistant(removal);
        }
        let surroundings = Surroundings {
            topics,
            device: Device::new(config.node.as_str(), config.board.platform().model()),
            phases: Phase::ALL.map(Phase::name).to_vec(),
            has_thermal,
        };
        let max_steps = config.limits.steps.0;
        self.home_assistant =
            Some(HomeAssistant::new(&config.home_assistant, surroundings, max_steps, record));
    }

    pub(super) fn update_home_assistant(&mut self, update: impl FnOnce(&mut HomeAssistant, Instant)) {
        if let Some(home_assistant) = &mut self.home_assistant {
            update(home_assistant, Instant::now());
        }
    }

    /// Handles Home Assistant's birth or will message.
    pub(super) fn on_home_assistant_status(&mut self, incoming: Incoming) {
        let Incoming { payload, is_retained, ack, .. } = incoming;
        self.update_home_assistant(|device, now| device.on_status(&payload, is_retained, now));
        self.outbox.push(SpoolCommand::Ack(ack));
    }

    /// Publishes and stores what follows from an event.
    fn apply_home_assistant(&mut self, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            self.outbox.push(match output {
                Output::Publish(message) => SpoolCommand::Forward(message),
                Output::Deliver(message) => SpoolCommand::Write(Change::Send(message)),
                Output::Store(value) => SpoolCommand::Write(Change::SetValue { name: RECORD_NAME, value }),
            });
        }
    }

    /// Publishes what is due.
    pub(super) fn step_home_assistant(&mut self) {
        if let Some(home_assistant) = &mut self.home_assistant {
            let outputs = home_assistant.on_tick(Instant::now());
            self.apply_home_assistant(outputs);
        }
    }

    /// Changes the settings, or reports why they cannot be changed. Either way the entities show the present ones.
    pub(super) fn on_settings(&mut self, incoming: Incoming, command: CommandDigest) {
        let Some(home_assistant) = &mut self.home_assistant else { return };
        let proposed = home_assistant.propose(&incoming.payload);
        let checked =
            proposed.and_then(|proposed| self.registry.check_settings(&proposed).map(|()| proposed.settings));
        match checked {
            Ok(settings) => {
                let outputs = home_assistant.set_settings(settings, Instant::now());
                self.apply_home_assistant(outputs);
            }
            Err(error) => self.reject_settings(&incoming, error),
        }
        self.complete((command, incoming.ack));
    }

    fn reject_settings(&mut self, incoming: &Incoming, error: JobError) {
        let effects = self.registry.reject_settings(incoming, error);
        self.apply(effects);
        let settings = self.home_assistant.as_ref().and_then(HomeAssistant::settings_message);
        self.apply_home_assistant(settings);
    }

    /// Draws a picture with the settings.
    pub(super) fn on_draw(&mut self, incoming: Incoming, command: CommandDigest) {
        let Some(home_assistant) = &self.home_assistant else { return };
        let request = home_assistant.request(format!("{DRAWN_ID_PREFIX}{:016x}", fastrand::u64(..)));
        self.registry.on_spool_written(self.spool.processed());
        let admission = self.registry.on_draw(&incoming, request, self.spool.has_capacity());
        self.on_admission(admission, Some((command, incoming.ack)));
    }

    /// Cancels all pictures that were drawn with the settings.
    pub(super) fn on_cancel_drawn(&mut self, (command, ack): HeldCommand) {
        let effects = self.registry.cancel_all(DRAWN_ID_PREFIX, command, ack);
        effects.into_iter().for_each(|effects| self.apply(effects));
    }

    /// Publishes the facts about a picture.
    pub(super) fn publish_facts(&mut self, job: &Job, event: &JobEvent<EncodedImage>) {
        if let (Some(home_assistant), JobEvent::Image { receipt, .. }) = (&mut self.home_assistant, event)
            && self.registry.has_job(&job.id)
        {
            let output = home_assistant.on_image(receipt);
            self.apply_home_assistant(output);
        }
    }

    /// Publishes the end of a job.
    pub(super) fn publish_end(&mut self, JobEnd { id, result }: &JobEnd) {
        let output = self.home_assistant.as_ref().map(|home_assistant| home_assistant.on_job_end(id, result));
        self.apply_home_assistant(output);
    }
}
