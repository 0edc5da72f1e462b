// When something was: the time, with the date unless it was today.
import { moment, time } from "../platform/format";

export function When({ at }: { at: string }) {
  const isToday = new Date(at).toDateString() === new Date().toDateString();
  return <time dateTime={at} title={moment(at)}>{isToday ? time(at) : moment(at)}</time>;
}
