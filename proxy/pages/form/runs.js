// The runs of this page, each a card: how far its job is, what it made, and what can be done with it.
const ENDED = ['succeeded', 'failed', 'canceled'];
const pageTitle = document.title;
const STATUS_WORDS = {
  queued: 'Waits', running: 'Runs', canceling: 'Is being canceled', succeeded: 'Done', failed: 'Failed', canceled: 'Canceled', lost: 'Not found',
};

class Run {
  // parts: of the call, to send it again; null for a job that was found by its address alone.
  constructor(id, number, parts) {
    this.id = id;
    this.parts = parts;
    this.status = 'queued';
    this.shownOutputs = '';
    this.took = '';
    this.isReading = this.isStale = false;
    this.title = make('h3', {id: `run-${number}`}, `Run ${number}`);
    this.badge = make('span', {class: 'badge'}, '');
    this.when = make('span', {class: 'quiet small when'}, '');
    this.bar = make('progress', {max: '1', value: '0', 'aria-labelledby': `run-${number}`});
    this.state = make('p', {class: 'quiet small state'}, '');
    this.wrong = make('p', {class: 'error', hidden: true});
    this.results = make('div', {class: 'results'});
    this.drawn = make('p', {class: 'drawn small', hidden: true});
    this.cancelButton = button('Cancel', () => this.cancel());
    this.againButton = button('Run again', () => runParts(this.parts));
    this.againButton.hidden = true;
    const link = make('a', {href: `${call.dataset.here}#job=${id}`, target: '_blank', rel: 'noopener', class: 'small'}, 'Link to this job');
    // What grows stands last: so nothing moves under a finger.
    this.card = make('article', {class: 'run', 'aria-labelledby': `run-${number}`, 'data-job': id},
      make('header', null, this.title, this.badge, this.when), this.bar, this.state,
      make('div', {class: 'buttons'}, this.cancelButton, this.againButton, link), this.drawn, this.wrong, this.results);
    this.showState();
  }

  get hasEnded() { return ENDED.includes(this.status) || this.status === 'lost'; }

  // A job as the gate tells it.
  show(job) {
    this.when.textContent = timeInWords(job.created_at);
    if (job.metrics?.execution_ms != null) this.took = `Took ${secondsInWords(job.metrics.execution_ms / 1000)}`;
    if (job.progress) this.showProgress(job.progress);
    this.showOutputs(job.outputs ?? []);
    if (job.drawn) this.showDrawn(job.drawn);
    if (job.error) this.fail([job.error.message, job.error.class_type && `in ${job.error.class_type}`].filter(Boolean).join(' '));
    this.showState(job.status, job.queue_position, job.estimated_start);
  }

  showState(status = this.status, position = null, starts = null) {
    const before = this.status;
    this.status = status;
    this.card.dataset.status = status;
    this.badge.textContent = STATUS_WORDS[status] ?? status;
    if (status === 'succeeded') this.bar.value = 1;
    this.cancelButton.hidden = this.hasEnded || status === 'canceling';
    this.againButton.hidden = !this.hasEnded || this.parts === null;
    if (status === 'queued') {
      const begins = timeInWords(starts);
      this.state.textContent = `${position ? `Number ${position} of yours that wait` : ''}${position && begins ? ', ' : ''}${begins ? `begins about ${begins}` : ''}`;
    } else if (this.hasEnded) {
      this.state.textContent = this.took;
      this.results.querySelector('.preview')?.remove();
    }
    if (status === before) return;
    tell(`${this.title.textContent}: ${this.badge.textContent}`);
    if (this.hasEnded && document.hidden) document.title = `${this.badge.textContent}: ${pageTitle}`;
  }

  showProgress(progress) {
    if (this.hasEnded) return;
    const percent = Math.floor(progress.value * 100);
    this.bar.value = progress.value;
    const step = progress.steps ? `step ${progress.step} of ${progress.steps}` : '';
    this.state.textContent = [`${percent} %`, progress.current_node_class, step].filter(Boolean).join(', ');
    const quarter = Math.floor(percent / 25);
    if (quarter > (this.quarter ?? 0)) tell(`${this.title.textContent}: ${percent} %`);
    this.quarter = quarter;
  }

  showPreview(preview) {
    const source = pictureSource(preview.content_type, preview.data_base64);
    if (!source || this.hasEnded) return;
    const shown = this.results.querySelector('.preview img');
    if (shown) shown.src = source;
    else this.results.append(make('figure', {class: 'preview'}, make('img', {src: source, alt: 'Preview'}), make('figcaption', {class: 'quiet'}, 'Preview')));
  }

  showOutputs(outputs) {
    const ids = outputs.map(output => [output.id, output.output, output.size_bytes, output.error].join(':')).join();
    if (ids === this.shownOutputs) return;
    this.shownOutputs = ids;
    const preview = this.results.querySelector('.preview');
    // Its place is held until the pictures that come instead are there: else what stands below would jump twice.
    this.results.style.minHeight = `${this.results.offsetHeight}px`;
    this.results.replaceChildren(...outputs.map(output => resultOf(this.id, output)));
    if (preview) this.results.append(preview);
    const loaded = [...this.results.querySelectorAll('figure:not(.preview) img')].map(each => each.decode().catch(() => null));
    Promise.all(loaded).then(() => { this.results.style.minHeight = ''; });
  }

  showDrawn(drawn) {
    const parts = [];
    for (const [name, number] of Object.entries(drawn)) {
      const field = fields.find(each => each.name === name);
      parts.push(`Drawn for ${field?.title ?? name}: ${number} `);
      if (field) parts.push(button(`Keep ${number}`, () => { field.set(String(number)); field.control.focus(); }), ' ');
    }
    this.drawn.replaceChildren(...parts);
    this.drawn.hidden = parts.length === 0;
  }

  fail(words) {
    this.wrong.textContent = words;
    this.wrong.hidden = !words;
  }

  // Asks the gate how it is; while an answer is under way, once more after it.
  async read() {
    this.isStale = true;
    if (this.isReading) return;
    this.isReading = true;
    try {
      while (this.isStale) {
        this.isStale = false;
        await this.answered(await fetch(jobUrl(this.id), {headers: {Accept: 'application/json'}, cache: 'no-store'}));
      }
    } catch { /* no connection: the next look finds out */ } finally {
      this.isReading = false;
    }
  }

  async answered(answer) {
    if (answer.ok) {
      this.fail('');
      this.show(await answer.json());
    } else if (answer.status === 404) this.lose();
    else if (answer.status === 401 || answer.status === 403) this.fail(sentencesOf(answer.status, await answer.json()).join(' '));
  }

  lose() {
    this.showState('lost');
    this.fail('There is no such job of yours: it is not kept any more, or was never yours.');
  }

  async cancel() {
    this.cancelButton.disabled = true;
    const {status, answer} = await post(jobUrl(this.id, '/cancel'), {body: null}, {Accept: 'application/json'});
    this.cancelButton.disabled = false;
    if (status === 200) this.show(answer);
    else this.fail(sentencesOf(status, answer).join(' '));
  }
}
