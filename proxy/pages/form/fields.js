// The form's fields: what stands in them, what is wrong with it, and the files that were chosen.
const isFile = type => ['image', 'mask', 'audio', 'video'].includes(type);
const maxFileBytes = Number(call.dataset.maxFileBytes);

class Field {
  constructor(box) {
    this.name = box.dataset.name;
    this.type = box.dataset.type;
    this.fills = box.dataset.fills.split(' ');
    this.control = box.querySelector('input, textarea, select');
    this.title = box.querySelector('label').firstChild.textContent;
    this.wrong = box.querySelector('.wrong');
    this.address = box.querySelector('.address input');  // of a file that the gate fetches
    this.control.addEventListener('input', () => this.fail(''));
    this.address?.addEventListener('input', () => this.fail(''));
    if (isFile(this.type)) this.takeFiles(box.querySelector('.drop'), box.querySelector('.chosen'));
  }

  // null: not given. A text goes out as it is written: digits too, of which a number of JavaScript's keeps fifteen.
  value() {
    if (isFile(this.type)) return this.control.files[0] ?? (this.address?.value.trim() || null);
    if (this.type === 'boolean') return String(this.control.checked);
    if (['integer', 'number', 'seed'].includes(this.type)) return this.control.value.trim() || null;
    return this.control.value;
  }

  check() {
    const file = isFile(this.type) ? this.control.files[0] : null;
    if (file && file.size > maxFileBytes) return `This file has ${sizeInWords(file.size)}: at most ${sizeInWords(maxFileBytes)} are taken.`;
    if (!file && this.address?.value) return this.address.validity.valid ? '' : 'Write an address that begins with https://.';
    if (this.control.validity.valid) return '';
    if (this.type === 'seed' && this.control.validity.patternMismatch) return 'Write a whole number, or nothing.';
    return this.control.validationMessage;
  }

  fail(words) {
    this.wrong.textContent = words;
    for (const each of [this.control, this.address]) each?.removeAttribute('aria-invalid');
    if (words) this.used.setAttribute('aria-invalid', 'true');
  }

  // What was filled in of the two that stand for a file.
  get used() { return this.address?.value ? this.address : this.control; }

  set(text) {
    this.control.value = text;
    this.fail('');
  }

  takeFiles(drop, chosen) {
    const isOver = is => drop.classList.toggle('over', is);
    drop.addEventListener('dragover', event => { event.preventDefault(); isOver(true); });
    drop.addEventListener('dragleave', () => isOver(false));
    drop.addEventListener('drop', event => {
      event.preventDefault();
      isOver(false);
      const file = event.dataTransfer.files[0];
      if (!file) {  // perhaps a picture of another page's
        const link = event.dataTransfer.getData('text/uri-list').split(/\r?\n/).find(each => each.startsWith('https://'));
        if (link && this.address) this.address.value = link;
        return;
      }
      const one = new DataTransfer();
      one.items.add(file);
      this.control.files = one.files;
      this.showFile(chosen);
    });
    this.control.addEventListener('change', () => this.showFile(chosen));
    this.showFile(chosen);  // a browser may have kept the choice over a reload
  }

  showFile(chosen) {
    this.fail('');
    URL.revokeObjectURL(this.shown);
    chosen.replaceChildren();
    const file = this.control.files[0];
    if (!file) return;
    if (this.address) this.address.value = '';
    this.shown = URL.createObjectURL(file);
    const kind = file.type.split('/')[0];
    const alt = `Chosen: ${file.name}`;
    if (kind === 'image') chosen.append(make('img', {src: this.shown, alt}));
    else if (kind === 'audio' || kind === 'video') chosen.append(make(kind, {src: this.shown, controls: true, 'aria-label': alt}));
    const remove = () => {
      this.control.value = '';
      this.showFile(chosen);
      this.control.focus();
    };
    chosen.append(button(`Remove ${file.name}`, remove));
  }
}

const fields = [...call.querySelectorAll('.field')].map(box => new Field(box));

// Whether the form can be sent. Else what is wrong is said beside each field, and the first of them has the focus.
const checkFields = () => {
  for (const field of fields) field.fail(field.check());
  return focusWrong();
};

const focusWrong = () => {
  const first = fields.find(field => field.wrong.textContent);
  first?.used.focus();
  return !first;
};
