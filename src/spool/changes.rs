//! Applies changes to the spool's tables.

use std::collections::BTreeMap;

use redb::{ReadableTable, ReadableTableMetadata};

use super::record::{
    AcceptedJob, CompletedRecord, ReplyTo, read_json, read_message, write_json, write_message,
};
use super::store::{
    CLOCK, COMPLETED, Change, CommandDigest, DbResult, FINISHED_AT, HANDLED, JOBS, MAX_HANDLED_COMMANDS,
    MESSAGES, PENDING, Store, VALUES, answer_part,
};
use crate::mqtt::Message;

/// The tables of one transaction.
struct Tables<'t> {
    jobs: redb::Table<'t, u64, &'static [u8]>,
    messages: redb::Table<'t, u64, &'static [u8]>,
    pending: redb::Table<'t, u64, ()>,
    completed: redb::Table<'t, &'static str, &'static [u8]>,
    finished_at: redb::Table<'t, (u64, &'static str), ()>,
    handled: redb::Table<'t, u64, u64>,
    /// What the transaction changes about completed jobs; visible once it is committed.
    completions: Vec<Completion>,
}

enum Completion {
    Added { id: String, digest: String },
    Evicted { id: String },
}

impl Store {
    /// Applies all changes in one transaction. Returns the numbers of the messages to be delivered
    /// again.
    pub(super) fn try_write(&mut self, changes: &[Change]) -> DbResult<Vec<u64>> {
        let write = self.database.begin_write()?;
        let mut redeliver = Vec::new();
        let completions = {
            let mut tables = Tables {
                jobs: write.open_table(JOBS)?,
                messages: write.open_table(MESSAGES)?,
                pending: write.open_table(PENDING)?,
                completed: write.open_table(COMPLETED)?,
                finished_at: write.open_table(FINISHED_AT)?,
                handled: write.open_table(HANDLED)?,
                completions: Vec::new(),
            };
            for change in changes {
                match change {
                    Change::Accept(job) => self.accept(&mut tables, job)?,
                    Change::Send(message) => self.send(&mut tables, message)?,
                    Change::Delivered(number) => self.delivered(&mut tables, *number)?,
                    Change::Finish { id } => self.finish(&mut tables, id)?,
                    Change::Forget(id) => self.forget(&mut tables, id)?,
                    Change::Handled(command) => self.handled(&mut tables, *command)?,
                    Change::SetValue { name, value } => {
                        write.open_table(VALUES)?.insert(*name, value.as_slice())?;
                    }
                    Change::Redeliver { id, reply } => {
                        redeliver.extend(self.redeliver(&mut tables, id, reply.as_ref())?);
                    }
                }
            }
            let now = self.clock.now();
            self.evict(&mut tables, now)?;
            write.open_table(CLOCK)?.insert((), now)?;
            tables.completions
        };
        write.commit()?;
        for completion in completions {
            match completion {
                Completion::Added { id, digest } => self.completed_jobs.insert(&id, &digest),
                Completion::Evicted { id } => self.completed_jobs.remove(&id),
            }
        }
        Ok(redeliver)
    }

    fn accept(&mut self, tables: &mut Tables<'_>, job: &AcceptedJob) -> DbResult<()> {
        tables.jobs.insert(self.next_number, write_json(job).as_slice())?;
        self.jobs.insert(job.id.clone(), self.next_number);
        self.answers.insert(job.id.clone(), BTreeMap::new());
        self.next_number += 1;
        Ok(())
    }

    fn send(&mut self, tables: &mut Tables<'_>, message: &Message) -> DbResult<()> {
        if let Some((id, part)) = answer_part(message)
            && let Some(answers) = self.answers.get_mut(id)
        {
            // An interrupted job that runs again repeats the answers that were stored before.
            if answers.contains_key(&part) {
                return Ok(());
            }
            answers.insert(part, self.next_number);
        }
        let record = write_message(message);
        tables.messages.insert(self.next_number, record.as_slice())?;
        tables.pending.insert(self.next_number, ())?;
        self.pending_bytes += record.len() as u64;
        self.next_number += 1;
        Ok(())
    }

    fn delivered(&mut self, tables: &mut Tables<'_>, number: u64) -> DbResult<()> {
        if tables.pending.remove(number)?.is_none() {
            return Ok(());
        }
        let (size, is_kept) = {
            let Some(record) = tables.messages.get(number)? else { return Ok(()) };
            let message = read_message(record.value())?;
            let is_kept = match answer_part(&message) {
                Some((id, _)) => {
                    self.keeps_answers()
                        && (self.answers.contains_key(id) || tables.completed.get(id)?.is_some())
                }
                None => false,
            };
            (record.value().len() as u64, is_kept)
        };
        self.pending_bytes = self.pending_bytes.saturating_sub(size);
        if is_kept {
            self.delivered_bytes += size;
        } else {
            tables.messages.remove(number)?;
        }
        Ok(())
    }

    fn keeps_answers(&self) -> bool {
        self.keep_s > 0
    }

    fn finish(&mut self, tables: &mut Tables<'_>, id: &str) -> DbResult<()> {
        let Some(job) = self.take_job(tables, id)? else { return Ok(()) };
        let answers = self.answers.remove(id).unwrap_or_default().into_values().collect();
        if self.keeps_answers() {
            let record = CompletedRecord { digest: job.digest, at: self.clock.now(), answers };
            tables.completed.insert(id, write_json(&record).as_slice())?;
            tables.finished_at.insert((record.at, id), ())?;
            tables.completions.push(Completion::Added { id: id.to_owned(), digest: record.digest });
        }
        Ok(())
    }

    fn forget(&mut self, tables: &mut Tables<'_>, id: &str) -> DbResult<()> {
        self.take_job(tables, id)?;
        for number in self.answers.remove(id).unwrap_or_default().into_values() {
            self.remove_delivered(tables, number)?;
        }
        Ok(())
    }

    /// Removes and returns the accepted job with this id.
    fn take_job(&mut self, tables: &mut Tables<'_>, id: &str) -> DbResult<Option<AcceptedJob>> {
        let Some(number) = self.jobs.remove(id) else { return Ok(None) };
        let record = tables.jobs.remove(number)?;
        Ok(record.map(|record| read_json(record.value())).transpose()?)
    }

    /// Removes a message if it was delivered; a pending one must still be delivered.
    fn remove_delivered(&mut self, tables: &mut Tables<'_>, number: u64) -> DbResult<()> {
        if tables.pending.get(number)?.is_none()
            && let Some(record) = tables.messages.remove(number)?
        {
            self.delivered_bytes = self.delivered_bytes.saturating_sub(record.value().len() as u64);
        }
        Ok(())
    }

    fn handled(&mut self, tables: &mut Tables<'_>, command: CommandDigest) -> DbResult<()> {
        tables.handled.insert(self.next_number, command)?;
        self.next_number += 1;
        if tables.handled.len()? > MAX_HANDLED_COMMANDS as u64 {
            tables.handled.pop_first()?;
        }
        Ok(())
    }

    fn redeliver(
        &mut self,
        tables: &mut Tables<'_>,
        id: &str,
        reply: Option<&ReplyTo>,
    ) -> DbResult<Vec<u64>> {
        let record = tables.completed.get(id)?.map(|record| read_json::<CompletedRecord>(record.value()));
        let Some(CompletedRecord { answers, .. }) = record.transpose()? else { return Ok(Vec::new()) };
        for number in &answers {
            let Some(record) = tables.messages.get(*number)?.map(|record| record.value().to_vec()) else {
                continue;
            };
            if tables.pending.insert(*number, ())?.is_none() {
                self.pending_bytes += record.len() as u64;
                self.delivered_bytes = self.delivered_bytes.saturating_sub(record.len() as u64);
            }
            if let Some(reply) = reply {
                let message = read_message(&record)?;
                self.send(tables, &message.for_reply(&reply.topic, reply.correlation.clone()))?;
            }
        }
        Ok(answers)
    }

    /// Evicts the oldest completed jobs that are past the retention period or over the size limit.
    fn evict(&mut self, tables: &mut Tables<'_>, now: u64) -> DbResult<()> {
        loop {
            let oldest =
                tables.finished_at.first()?.map(|(key, _)| (key.value().0, key.value().1.to_owned()));
            let Some((at, id)) = oldest else { break };
            let is_over_limit =
                self.pending_bytes + self.delivered_bytes > self.max_bytes && self.delivered_bytes > 0;
            if !is_over_limit && at.saturating_add(self.keep_s) >= now {
                break;
            }
            tables.finished_at.remove((at, id.as_str()))?;
            let record = tables.completed.remove(id.as_str())?;
            let record = record.map(|record| read_json::<CompletedRecord>(record.value())).transpose()?;
            for number in record.map_or_else(Vec::new, |record| record.answers) {
                self.remove_delivered(tables, number)?;
            }
            tables.completions.push(Completion::Evicted { id });
        }
        Ok(())
    }
}
