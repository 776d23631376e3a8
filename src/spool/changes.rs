//! What each change does to the spool's tables.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::record::{AcceptedJob, DoneJob, ReplyTo, read_message, write_message};
use super::store::{
    AGES, Change, DONE, Effects, JOBS, MESSAGES, PENDING, Store, answered, corrupted, json, now, read_json,
};
use crate::mqtt::Message;

struct Tables<'t> {
    jobs: redb::Table<'t, u64, &'static [u8]>,
    messages: redb::Table<'t, u64, &'static [u8]>,
    pending: redb::Table<'t, u64, ()>,
    done: redb::Table<'t, &'static str, &'static [u8]>,
    ages: redb::Table<'t, (u64, &'static str), ()>,
}

impl Store {
    /// All changes in one transaction; tells the numbers that are pending again.
    pub(super) fn try_write(&mut self, changes: &[Change]) -> Effects<Vec<u64>> {
        let write = self.database.begin_write()?;
        let mut again = Vec::new();
        {
            let mut tables = Tables {
                jobs: write.open_table(JOBS)?,
                messages: write.open_table(MESSAGES)?,
                pending: write.open_table(PENDING)?,
                done: write.open_table(DONE)?,
                ages: write.open_table(AGES)?,
            };
            for change in changes {
                match change {
                    Change::Accept(job) => {
                        tables.jobs.insert(self.next, json(job).as_slice())?;
                        self.jobs.insert(job.id.clone(), self.next);
                        self.answers.insert(job.id.clone(), BTreeMap::new());
                        self.next += 1;
                    }
                    Change::Send(message) => self.send(&mut tables, message)?,
                    Change::Delivered(number) => self.delivered(&mut tables, *number)?,
                    Change::Finish { id } => self.finish(&mut tables, id)?,
                    Change::Forget(id) => self.forget(&mut tables, id)?,
                    Change::Repeat { id, reply } => {
                        again.extend(self.repeat(&mut tables, id, reply.as_ref())?);
                    }
                }
            }
            self.evict(&mut tables)?;
        }
        write.commit()?;
        Ok(again)
    }

    fn send(&mut self, tables: &mut Tables<'_>, message: &Message) -> Effects<()> {
        let part = answered(message);
        if let Some((id, part)) = &part
            && let Some(answers) = self.answers.get_mut(*id)
        {
            // A job that was interrupted and runs again has part of its answers here already.
            if answers.contains_key(part) {
                return Ok(());
            }
            answers.insert(part.clone(), self.next);
        }
        let record = write_message(message);
        tables.messages.insert(self.next, record.as_slice())?;
        tables.pending.insert(self.next, ())?;
        self.pending_bytes += record.len() as u64;
        self.next += 1;
        Ok(())
    }

    fn delivered(&mut self, tables: &mut Tables<'_>, number: u64) -> Effects<()> {
        if tables.pending.remove(number)?.is_none() {
            return Ok(());
        }
        let (size, kept) = {
            let Some(record) = tables.messages.get(number)? else { return Ok(()) };
            let message = read_message(record.value()).map_err(corrupted)?;
            let kept = match answered(&message) {
                Some((id, _)) => {
                    self.keeps() && (self.answers.contains_key(id) || tables.done.get(id)?.is_some())
                }
                None => false,
            };
            (record.value().len() as u64, kept)
        };
        self.pending_bytes = self.pending_bytes.saturating_sub(size);
        if kept {
            self.kept_bytes += size;
        } else {
            tables.messages.remove(number)?;
        }
        Ok(())
    }

    fn keeps(&self) -> bool {
        self.keep_s > 0
    }

    fn finish(&mut self, tables: &mut Tables<'_>, id: &str) -> Effects<()> {
        let Some(job) = self.take_job(tables, id)? else { return Ok(()) };
        let answers = self.answers.remove(id).unwrap_or_default().into_values().collect();
        if self.keeps() {
            self.ledger.insert(id, &job.digest);
            let done = DoneJob { digest: job.digest, at: now(), answers };
            tables.done.insert(id, json(&done).as_slice())?;
            tables.ages.insert((done.at, id), ())?;
        }
        Ok(())
    }

    fn forget(&mut self, tables: &mut Tables<'_>, id: &str) -> Effects<()> {
        self.take_job(tables, id)?;
        for number in self.answers.remove(id).unwrap_or_default().into_values() {
            self.release(tables, number)?;
        }
        Ok(())
    }

    /// Remove and return the accepted job with this id.
    fn take_job(&mut self, tables: &mut Tables<'_>, id: &str) -> Effects<Option<AcceptedJob>> {
        let Some(number) = self.jobs.remove(id) else { return Ok(None) };
        tables.jobs.remove(number)?.map(|record| read_json(record.value())).transpose()
    }

    /// Remove a message that was delivered; one that was not is still owed.
    fn release(&mut self, tables: &mut Tables<'_>, number: u64) -> Effects<()> {
        if tables.pending.get(number)?.is_none()
            && let Some(record) = tables.messages.remove(number)?
        {
            self.kept_bytes = self.kept_bytes.saturating_sub(record.value().len() as u64);
        }
        Ok(())
    }

    fn repeat(&mut self, tables: &mut Tables<'_>, id: &str, reply: Option<&ReplyTo>) -> Effects<Vec<u64>> {
        let Some(done) = tables.done.get(id)?.map(|record| read_json::<DoneJob>(record.value())) else {
            return Ok(Vec::new());
        };
        let numbers = done?.answers;
        for number in &numbers {
            let Some(record) = tables.messages.get(*number)?.map(|record| record.value().to_vec()) else {
                continue;
            };
            if tables.pending.insert(*number, ())?.is_none() {
                self.pending_bytes += record.len() as u64;
                self.kept_bytes = self.kept_bytes.saturating_sub(record.len() as u64);
            }
            if let Some(reply) = reply {
                let message = read_message(&record).map_err(corrupted)?;
                self.send(tables, &message.for_reply(&reply.topic, reply.correlation.clone()))?;
            }
        }
        Ok(numbers)
    }

    /// Let go of the oldest answers, beyond the horizon or where room is short.
    fn evict(&mut self, tables: &mut Tables<'_>) -> Effects<()> {
        loop {
            let oldest = tables.ages.first()?.map(|(key, _)| (key.value().0, key.value().1.to_owned()));
            let Some((at, id)) = oldest else { break };
            let crowded = self.pending_bytes + self.kept_bytes > self.max_bytes && self.kept_bytes > 0;
            if !crowded && at + self.keep_s >= now() {
                break;
            }
            tables.ages.remove((at, id.as_str()))?;
            self.ledger.remove(&id);
            let done = tables.done.remove(id.as_str())?.map(|record| read_json::<DoneJob>(record.value()));
            for number in done.transpose()?.map_or_else(Vec::new, |done| done.answers) {
                self.release(tables, number)?;
            }
        }
        Ok(())
    }
}
