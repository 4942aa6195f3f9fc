// What a job has made, as elements: pictures, films and sounds are shown, texts are read, all else can only be kept as a file.
const SHOWN_PICTURES = ['image/png', 'image/jpeg', 'image/webp', 'image/gif', 'image/avif', 'image/bmp'];
const MAX_SHOWN_TEXT = 65536;

const pictureSource = (type, base64) => (SHOWN_PICTURES.includes(type) ? `data:${type};base64,${base64}` : null);

// Where the gate says the file is, on the page's own origin.
const outputUrl = (id, output) => {
  const {pathname, search} = new URL(output.url, location.href);
  const name = pathname.slice(pathname.lastIndexOf('/') + 1);
  return jobUrl(id, `/outputs/${name}${search}`);
};

const textOf = (url, name, size) => {
  const shown = make('pre', {tabindex: '0', role: 'group', 'aria-label': name}, '…');
  const read = async () => {
    try {
      const answer = await fetch(url, {headers: {Range: `bytes=0-${MAX_SHOWN_TEXT - 1}`}});
      if (!answer.ok) throw new Error(`answer ${answer.status}`);
      const text = await answer.text();
      shown.textContent = size > MAX_SHOWN_TEXT ? `${text}\n… (${sizeInWords(size)} in all)` : text;
    } catch (error) {
      shown.textContent = `This text cannot be read: ${error.message}`;
    }
  };
  read();
  return shown;
};

const resultOf = (id, output) => {
  const type = String(output.content_type).split(';')[0].trim().toLowerCase();
  const kind = type.split('/')[0];
  const url = outputUrl(id, output);
  const name = output.output ? `${output.output}: ${output.name}` : output.name;
  if (output.error) return make('figure', {class: 'refused'}, make('p', null, output.error), make('figcaption', null, name));
  let shown = null;
  if (SHOWN_PICTURES.includes(type)) shown = make('img', {src: url, alt: name});
  else if (kind === 'video' || kind === 'audio') shown = make(kind, {src: url, controls: true, preload: 'metadata', 'aria-label': name});
  else if (type === 'text/plain') shown = textOf(url, name, output.size_bytes);
  const link = make('a', {href: url, download: output.name}, `Download ${output.name}`);
  const size = Number.isFinite(output.size_bytes) ? ` (${sizeInWords(output.size_bytes)})` : '';
  return make('figure', null, shown, make('figcaption', null, output.output ? `${output.output}: ` : null, link, size));
};
