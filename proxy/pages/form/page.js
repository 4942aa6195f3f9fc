// The page as a whole: the form is sent, its runs stand beside it, and the page's address names their jobs, so that a reload finds them again.
const MAX_RUNS = 12;
const ID = /^[A-Za-z0-9-]{1,64}$/;
const runs = [];  // the newest first
const follower = new Follower(runs);
let count = 0;

const idsOfAddress = () => {
  const found = new URLSearchParams(location.hash.slice(1)).get('job') ?? '';
  return found.split(',').filter(id => ID.test(id)).slice(0, MAX_RUNS);
};

const add = (id, parts) => {
  if (runs.some(run => run.id === id)) return null;
  count += 1;
  const run = new Run(id, count, parts);
  runs.unshift(run);
  byId('runs').prepend(run.card);
  byId('none').hidden = true;
  for (const old of runs.slice(MAX_RUNS).filter(each => each.hasEnded)) {
    runs.splice(runs.indexOf(old), 1);
    old.card.remove();
  }
  return run;
};

// What a run was called with, for as long as the tab is there: a job does not tell its arguments. Files cannot be kept.
const KEPT = `run ${new URL(call.action).pathname} `;

const keepParts = (id, parts) => {
  if (parts.some(([, value]) => typeof value !== 'string')) return;
  try {
    sessionStorage.setItem(KEPT + id, JSON.stringify(parts));
  } catch { /* full, or not permitted: then it is as for a job of another page */ }
};

const keptParts = id => {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT + id));
  } catch {
    return null;
  }
};

const forgetParts = () => {
  const shown = runs.map(run => KEPT + run.id);
  try {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(KEPT) && !shown.includes(key)) sessionStorage.removeItem(key);
  } catch { /* there is none */ }
};

const keepAddress = () => history.replaceState(null, '', `#job=${runs.slice(0, MAX_RUNS).map(run => run.id).join()}`);

const submit = call.querySelector('button[type="submit"]');
let isSending = false;

const runParts = async parts => {
  if (isSending) return;
  showRefused([]);
  isSending = true;
  submit.setAttribute('aria-disabled', 'true');  // one that is disabled loses the focus
  const job = await sendCall(parts);
  submit.removeAttribute('aria-disabled');
  isSending = false;
  if (!job) return;
  const run = add(job.id, parts);
  keepParts(job.id, parts);
  forgetParts();
  keepAddress();
  run?.show(job);
  run?.card.scrollIntoView({block: 'nearest'});
  tell(`${run?.title.textContent}: ${run?.badge.textContent}`);
  follower.look();
};

call.addEventListener('submit', event => {
  event.preventDefault();
  if (isSending || !checkFields()) return;
  runParts(fields.map(field => [field.name, field.value()]).filter(([, value]) => value !== null));
});

const findRuns = () => {
  for (const id of idsOfAddress().reverse()) add(id, keptParts(id))?.read().then(() => follower.look());
  follower.look();
};

window.addEventListener('hashchange', findRuns);
submit.disabled = false;
findRuns();
