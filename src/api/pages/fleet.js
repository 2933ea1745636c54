// What this member has applied is enough for eyes, and is there while nobody leads.
const LOCAL = "consistency=local";
const api = (path) => ask(`/api/v1/${path}${path.includes("?") ? "&" : "?"}${LOCAL}`);
const NODES_MAX = 50;

function plot(id, history, key) {
  const values = history.map((point) => point[key]);
  const most = Math.max(1e-9, ...values.filter((value) => value !== null));
  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, set) => {
    const node = document.createElementNS(SVG, tag);
    Object.entries(set).forEach(([name, value]) => node.setAttribute(name, value));
    return node;
  };
  const at = (value, place) => `${place * 10},${(86 - 80 * value / most).toFixed(1)}`;
  // A time of which nothing is known is a gap, not a nought.
  const runs = [[]];
  values.forEach((value, place) => value === null ? runs.push([]) : runs.at(-1).push(at(value, place)));
  const lines = runs.filter((run) => run.length).map((run) => shape("polyline", { points: (run.length > 1 ? run : [run[0], run[0]]).join(" ") }));
  $(id).replaceChildren(shape("line", { x1: 0, x2: 190, y1: 86, y2: 86 }), ...lines);
  return values.at(-1);
}

function figures(status, paused) {
  const { network_metrics: net, nodes, tasks } = status.data;
  cards("figures", [
    ["nodes active", `${number(nodes.active)} / ${number(nodes.total)}`, nodes.active ? "" : "bad"],
    ["agents", number(net.total_agents)],
    ["waiting", number(tasks.pending), tasks.pending > 100 ? "warn" : ""],
    ["running", number(tasks.active)],
    ["completed", number(net.tasks_completed)],
    ["failed", number(net.tasks_failed)],
    ["success", percent(net.success_rate), net.success_rate < 0.9 ? "warn" : ""],
    ["utilization", percent(net.network_utilization), net.network_utilization > 0.85 ? "warn" : ""],
    ["mean response", number(net.average_response_time) + " ms"],
    ["this member up", span(net.uptime)],
  ]);
  $("name").textContent = status.data.orchestrator_id;
  if (paused) say("Scheduling is stopped: tasks are taken and nothing is placed.", "soft");
}

function members(cluster) {
  const rows = cluster.members.map((member) => [
    member.id, member.name, member.role, word(member.state), member.http,
    right(number(member.applied)), right(number(member.lag)), member.version,
  ]);
  table("members", ["id", "name", "role", "state", "HTTP", right("applied"), right("behind"), "version"], rows, "No members.");
  $("quorum").textContent = cluster.leader === null
    ? "nobody leads" : `member ${cluster.leader} leads term ${cluster.term}; ${cluster.failure_tolerance} more may be lost`;
  $("member").textContent = cluster.member_id;
}

function nodeRows(page) {
  const rows = page.order.map((id) => page.nodes[id]).map((node) => [
    node.node_id, word(node.status), node.node_type, `${node.host}:${node.port}`,
    right(`${number(node.running)} / ${number(node.capacity)}`), right(number(node.cpu_usage, 1) + " %"),
    right(number(node.memory_usage, 1) + " %"), right(number(node.load_score, 2)), right(number(node.agents.length)),
    when(node.last_heartbeat), { text: node.capabilities.join(", ") },
  ]);
  const head = ["node", "status", "type", "address", right("running"), right("cpu"), right("memory"), right("load"), right("agents"), "heard", "capabilities"];
  table("nodes", head, rows, "No node has registered.");
  $("nodecount").textContent = page.total > rows.length ? `the ${rows.length} most loaded of ${number(page.total)}` : "";
}

function queue({ queue: lists }) {
  const waiting = (task) => [task.task_id, task.task_type, task.priority, when(task.created_at)];
  table("pending", ["task", "type", "priority", "since"], lists.pending.map(waiting), "Nobody waits.");
  const running = (task) => [task.task_id, task.task_type, task.priority, (task.assigned_nodes || []).at(-1)];
  table("active", ["task", "type", "priority", "node"], lists.active.map(running), "Nothing runs.");
  const ended = (task) => [task.task_id, task.task_type, task.node_id, right(number(task.execution_time, 2) + " s"), when(task.completed_at)];
  table("completed", ["task", "type", "node", right("took"), "at"], lists.recent_completed.map(ended), "None yet.");
  const lost = (task) => [task.task_id, task.task_type, word(task.status), task.error_message, when(task.completed_at)];
  table("failed", ["task", "type", "end", "why", "at"], lists.recent_failed.map(lost), "None.");
}

function alerts(now, kept) {
  const live = now.alerts.map((alert) => [word(alert.severity), alert.title, alert.message, when(alert.timestamp)]);
  const stored = kept.alerts.filter((alert) => alert.status !== "resolved")
    .map((alert) => [word(alert.severity), `${alert.id} (${alert.status})`, alert.message, when(alert.since)]);
  table("alerts", ["severity", "alert", "what", "since"], [...live, ...stored], "None.");
}

async function show() {
  const [status, cluster, page, queued, now, kept, history] = await Promise.all([
    api("status?nodes=summary"), ask("/api/v1/cluster"), api(`nodes?sort=load_score&order=desc&limit=${NODES_MAX}`),
    api("dashboard/tasks/queue"), api("dashboard/alerts"), api("alerts"), api("dashboard/performance/history"),
  ]);
  // Not everybody who may look may read the configuration.
  const config = await api("config").catch(() => null);
  figures(status, config?.config?.orchestrator?.scheduling_paused === true);
  members(cluster);
  nodeRows(page);
  queue(queued);
  alerts(now, kept);
  $("rate").textContent = number(plot("throughput", history.history, "throughput"), 1) + " now, last 95 minutes";
  $("time").textContent = number(plot("response", history.history, "response_time")) + " ms now, last 95 minutes";
  if ($("said").textContent === "Asking ...") say("");
}

$("start").addEventListener("click", () => act("/api/v1/control/start"));
$("stop").addEventListener("click", () => {
  if (confirm("Stop scheduling? Tasks are still taken; nothing is placed until it is started again.")) act("/api/v1/control/stop");
});
forever();
