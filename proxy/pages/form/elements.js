// What the page is made of. Every text goes in as text: nothing that comes from the gate, from a file or from whoever writes here is read as HTML.
const byId = id => document.getElementById(id);

const make = (name, attributes, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter(each => each !== null && each !== undefined));
  return element;
};

const button = (words, pressed) => {
  const made = make('button', {type: 'button', class: 'second'}, words);
  made.addEventListener('click', pressed);
  return made;
};

const tell = words => { byId('told').textContent = words; };

const sizeInWords = bytes => {
  const units = ['bytes', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
};

const secondsInWords = seconds => {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

const timeInWords = text => {
  const moment = new Date(text ?? NaN);
  if (Number.isNaN(moment.getTime())) return '';
  const isToday = moment.toDateString() === new Date().toDateString();
  const clock = {hour: '2-digit', minute: '2-digit'};
  return isToday ? moment.toLocaleTimeString([], clock) : moment.toLocaleString([], {dateStyle: 'short', timeStyle: 'short'});
};

const call = byId('call');
// Of the gate's own paths: wherever an outer proxy serves the gate, they lie beside this page's.
const jobUrl = (id, rest = '') => new URL(`${call.dataset.jobs}${encodeURIComponent(id)}${rest}`, location.href).href;
