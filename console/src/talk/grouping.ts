// Turns in groups, so that a word that comes makes only the last group be compared with what is shown. A turn stays in its
// group, whatever is loaded before it.
import type { ChatTurn } from "@ai-chat-platform/client";

const SIZE = 20;

/** The same as long as the turn is shown. */
export const keyOf = ({ id, user }: ChatTurn): string => user?.id ?? `${id}:user`;

interface TurnGroup {
  key: number;
  members: readonly ChatTurn[];
}

/** Which turns stand together. A group whose turns are the same objects stays the same object. */
export class Grouping {
  #groupOf = new Map<string, number>();
  #shown = new Map<number, TurnGroup>();

  of(turns: readonly ChatTurn[]): TurnGroup[] {
    const known = turns.findIndex((turn) => this.#groupOf.has(keyOf(turn)));
    const first = known < 0 ? 0 : this.#groupOf.get(keyOf(turns[known]!))!;
    for (let i = known - 1; i >= 0; i--) this.#groupOf.set(keyOf(turns[i]!), first - 1 - Math.floor((known - 1 - i) / SIZE));
    const found: { key: number; members: ChatTurn[] }[] = [];
    for (const turn of turns) {
      const last = found.at(-1);
      const isFull = last && last.members.length >= SIZE;
      const own = this.#groupOf.get(keyOf(turn));
      const next = last ? last.key + (isFull ? 1 : 0) : first;
      const key = own !== undefined && own >= (last?.key ?? own) ? own : next; // one that was sent again moved down
      this.#groupOf.set(keyOf(turn), key);
      if (last?.key === key) last.members.push(turn);
      else found.push({ key, members: [turn] });
    }
    const shown = found.map((group) => {
      const before = this.#shown.get(group.key);
      return before && isSame(before.members, group.members) ? before : group;
    });
    this.#shown = new Map(shown.map((group) => [group.key, group]));
    return shown;
  }
}

const isSame = (one: readonly ChatTurn[], other: readonly ChatTurn[]) => one.length === other.length && one.every((turn, i) => turn === other[i]);
