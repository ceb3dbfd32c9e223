//! From what was read to what is written, through the gate.

use super::answer::{
    Answer, DeletedBody, ManyBody, PageBody, RecordBody, WrittenAllBody, WrittenBody,
};
use super::request::Request;
use crate::error::BulkError;
use crate::gate::{Caller, Gate};

impl Gate {
    /// Answers a request of the API.
    pub async fn answer(&self, caller: &Caller, request: Request) -> Result<Answer, BulkError> {
        Ok(match request {
            Request::Put(request) => {
                let namespace = request.namespace.clone();
                let written = WrittenBody::of(self.put(caller, request).await?)?;
                Answer::Written(written.in_namespace(&namespace))
            }
            Request::BulkPut(request) => {
                let namespace = request.namespace.clone();
                let written = self.bulk_put(caller, request).await?;
                Answer::WrittenAll(WrittenAllBody::of(&namespace, written)?)
            }
            Request::Get(request) => {
                let namespace = request.namespace.clone();
                let record = RecordBody::of(self.get(caller, request).await?)?;
                Answer::Record(record.in_namespace(&namespace))
            }
            Request::GetMany(request) => {
                let keys = request.keys.clone();
                Answer::Many(ManyBody::of(&keys, self.get_many(caller, request).await?)?)
            }
            Request::List(request) => {
                Answer::Page(PageBody::of(self.list(caller, request).await?)?)
            }
            Request::Delete(request) => Answer::Deleted(DeletedBody {
                success: true,
                deleted: self.delete(caller, request).await?,
            }),
            Request::Usage => Answer::Usage((&self.usage(caller).await?).into()),
        })
    }
}
