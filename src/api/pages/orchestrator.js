const given = new URLSearchParams(location.search).get("name");
const named = given ? "?name=" + encodeURIComponent(given) : "";
const also = given ? "&name=" + encodeURIComponent(given) : "";

function figures(state) {
  $("name").textContent = "Orchestrator " + state.name;
  cards("figures", [
    ["mode", state.mode],
    ["active", state.is_active ? "yes" : "no", state.is_active ? "good" : "warn"],
    ["steps", number(state.run_count)],
    ["last step", when(state.last_run_at)],
    ["simulations launched", number(state.total_simulations_launched)],
    ["experiments launched", number(state.total_experiments_launched)],
    ["trainings launched", number(state.total_trainings_launched)],
  ]);
  if (state.error_message) say(state.error_message, "bad");
}

function campaigns(list) {
  const rows = list.campaigns.map((campaign) => [
    campaign.name, word(campaign.status), right(`${number(campaign.current_iteration)} / ${number(campaign.max_iterations)}`),
    right(number(campaign.best_score, 4)), when(campaign.created_at), campaign.id,
  ]);
  table("campaigns", ["name", "status", right("iteration"), right("best score"), "created", "id"], rows, "No campaigns.");
  $("count").textContent = list.total > rows.length ? `${rows.length} of ${number(list.total)}` : "";
}

function runs(list) {
  const rows = list.map((run) => [
    when(run.started_at), run.triggered_by, run.completed_at ? (run.success ? word("completed") : word("failed")) : word("under way"),
    right(number(run.duration_seconds, 2) + " s"), right(number(run.actions.campaigns_advanced.length)), right(number(run.actions.simulations_launched)),
    right(number(run.actions.experiments_launched)), { text: run.error_message || run.actions.decisions.map((one) => `${one.type}: ${one.result}`).join(", ") },
  ]);
  const head = ["began", "by", "end", right("took"), right("campaigns"), right("simulations"), right("experiments"), "decisions"];
  table("runs", head, rows, "No step has been taken.");
}

const flat = (object) => Object.entries(object).map(([name, value]) =>
  [name.replaceAll("_", " "), { text: value !== null && typeof value === "object" ? (Array.isArray(value) ? value.length : JSON.stringify(value)) : value, kind: "right" }]);

async function show() {
  // Asking for the state of one that is not there would make it; its steps are only looked up.
  const past = await ask("/api/v1/orchestrator/runs?limit=20" + also);
  const [state, stats, list] = await Promise.all([
    ask("/api/v1/orchestrator/state" + named), ask("/api/v1/orchestrator/stats"), ask("/api/v1/campaigns?limit=50"),
  ]);
  if ($("said").textContent === "Asking ...") say("");
  figures(state);
  campaigns(list);
  runs(past);
  table("work", ["figure", right("value")], flat(stats), "Nothing.");
  table("config", ["setting", right("value")], flat(state.config), "Nothing.");
}

$("once").addEventListener("click", () => act("/api/v1/orchestrator/run_once" + named, "{}"));
$("activate").addEventListener("click", () => act("/api/v1/orchestrator/activate" + named));
$("deactivate").addEventListener("click", () => act("/api/v1/orchestrator/deactivate" + named));
forever();
