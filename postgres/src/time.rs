//! Times as columns.

use alga_model::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// A [`Timestamp`] as a `timestamptz`, which is finer: what comes from there is rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

/// `timestamptz`, in every PostgreSQL.
const OID: Oid = Oid(1184);
/// Microseconds from 1970 to 2000, from when PostgreSQL counts.
const EPOCH: i64 = 946_684_800_000_000;
const MICROS: i64 = 1_000;

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(OID)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // A `Timestamp` is between the years 1970 and 9999.
        let micros = self.0.as_millis() * MICROS - EPOCH;
        <i64 as Encode<Postgres>>::encode(micros, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Time {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let millis = micros.saturating_add(EPOCH).div_euclid(MICROS);
        Ok(Self(Timestamp::from_millis(millis)))
    }
}
