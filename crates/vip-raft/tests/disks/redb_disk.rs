//! The log's records in redb: two tables, a commit that is durable for each sync.

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::io;
use std::path::Path;
use vip_raft::{Beside, Change, LogDisk};

const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const BESIDE: TableDefinition<&str, &[u8]> = TableDefinition::new("beside");

pub(crate) struct RedbDisk(Database);

fn io(error: impl Into<redb::Error>) -> io::Error {
    io::Error::other(error.into())
}

fn name(what: Beside) -> &'static str {
    match what {
        Beside::Purged => "purged",
        Beside::Committed => "committed",
    }
}

impl RedbDisk {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let db = Database::builder().set_cache_size(1 << 20).create(path).map_err(io)?;
        let write = db.begin_write().map_err(io)?;
        write.open_table(ENTRIES).map_err(io)?;
        write.open_table(BESIDE).map_err(io)?;
        write.commit().map_err(io)?;
        Ok(Self(db))
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&redb::WriteTransaction) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut write = self.0.begin_write().map_err(io)?;
        write.set_durability(durability).map_err(io)?;
        change(&write)?;
        write.commit().map_err(io)
    }
}

impl LogDisk for RedbDisk {
    fn entries(&self, from: u64, to: u64) -> io::Result<Vec<Vec<u8>>> {
        let table = self.0.begin_read().map_err(io)?.open_table(ENTRIES).map_err(io)?;
        let items = table.range(from..=to).map_err(io)?;
        items.map(|item| Ok(item.map_err(io)?.1.value().to_vec())).collect()
    }

    fn last(&self) -> io::Result<Option<Vec<u8>>> {
        let table = self.0.begin_read().map_err(io)?.open_table(ENTRIES).map_err(io)?;
        Ok(table.last().map_err(io)?.map(|(_, value)| value.value().to_vec()))
    }

    fn beside(&self, what: Beside) -> io::Result<Option<Vec<u8>>> {
        let table = self.0.begin_read().map_err(io)?.open_table(BESIDE).map_err(io)?;
        Ok(table.get(name(what)).map_err(io)?.map(|value| value.value().to_vec()))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.write(Durability::None, |write| {
            let mut entries = write.open_table(ENTRIES).map_err(io)?;
            let mut beside = write.open_table(BESIDE).map_err(io)?;
            match change {
                Change::Append(new) => {
                    for (index, bytes) in new {
                        entries.insert(index, &bytes[..]).map_err(io)?;
                    }
                }
                Change::TruncateFrom(index) => {
                    entries.retain_in(index.., |_, _| false).map_err(io)?;
                }
                Change::PurgeTo(index, purged) => {
                    entries.retain_in(..=index, |_, _| false).map_err(io)?;
                    beside.insert(name(Beside::Purged), &purged[..]).map_err(io)?;
                }
                Change::Commit(committed) => {
                    beside.insert(name(Beside::Committed), &committed[..]).map_err(io)?;
                }
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.write(Durability::Immediate, |_| Ok(()))
    }
}
