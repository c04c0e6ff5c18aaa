// What happened to the federation.

import { get } from "../api.js";
import { fill, link, section, table } from "../dom.js";
import { moment } from "../format.js";

const detail = (event) =>
  Object.entries(event.detail)
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");

export const eventTable = (name, events) =>
  table(
    name,
    [["at"], ["what"], ["run"], ["node"], ["detail"]],
    events.map((event) => [
      moment(event.at),
      event.kind,
      event.run ? link(event.run, "run", event.run) : "",
      event.node ? link(event.node, "node", event.node) : "",
      detail(event),
    ]),
  );

export function eventsView() {
  const { element, box } = section("Events");
  async function refresh() {
    const page = await get("/api/events", { limit: 200 });
    fill(box, page.events, () => eventTable("the newest events, the newest first", page.events));
    return 2500;
  }
  return { title: "Events", element, refresh };
}
