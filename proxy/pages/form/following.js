// Hears of the runs that have not ended: of the oldest by a stream of events, of the others by asking.
// One stream alone, and none while nobody looks: a browser has six connections to a host for all its tabs (over HTTP/1.1).
const ASK_EACH_MS = 5000;
const ASK_UNSEEN_EACH_MS = 20000;
const ASK_ALL_EACH = 12;  // times: also of what a stream tells, whose connection may be dead without a word

class Follower {
  constructor(runs) {
    this.runs = runs;
    this.followed = this.source = this.timer = null;
    this.asked = 0;
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) document.title = pageTitle;
      this.leave();
      this.look();
      this.ask();
    });
  }

  // Called whenever a run has come, or has ended.
  look() {
    const open = this.runs.filter(run => !run.hasEnded);
    const oldest = document.hidden ? null : open.at(-1) ?? null;
    if (this.followed !== oldest) {
      this.leave();
      if (oldest) this.follow(oldest);
    }
    if (open.length && this.timer === null) this.wait();
  }

  wait() {
    this.timer = setTimeout(() => { this.timer = null; this.ask(); this.look(); }, document.hidden ? ASK_UNSEEN_EACH_MS : ASK_EACH_MS);
  }

  // Of those that no stream tells of.
  ask() {
    this.asked += 1;
    for (const run of this.runs) {
      const isHeard = run === this.followed && this.source?.readyState === EventSource.OPEN && this.asked % ASK_ALL_EACH;
      if (!run.hasEnded && !isHeard) run.read().then(() => this.look());
    }
    if (this.source?.readyState === EventSource.CLOSED) this.leave();  // refused; another is begun with the next look
  }

  follow(run) {
    this.followed = run;
    const source = new EventSource(jobUrl(run.id, '/events'));
    this.source = source;
    const on = (kind, use) => source.addEventListener(kind, event => {
      if (this.source === source) use(JSON.parse(event.data));
    });
    // A state says neither when the job will begin nor how it failed: the job does.
    on('status', ({status, queue_position: position}) => {
      if (!ENDED.includes(status)) run.showState(status, position);
      else this.leave();
      // Where that does not succeed the next look comes by the clock: else one that fails at once would never rest.
      run.read().then(() => { if (run.hasEnded) this.look(); });
    });
    on('output', () => run.read());
    on('progress', progress => run.showProgress(progress));
    on('preview', preview => run.showPreview(preview));
  }

  leave() {
    this.source?.close();
    this.source = this.followed = null;
  }
}
