// Sends a call, again when the connection breaks: under one Idempotency-Key it makes one job. And says what was refused, beside the field where it can.
const MAX_TRIES = 5;
const TRY_AGAIN_MS = 2000;
const STOPPING = [502, 503, 504];

const pause = ms => new Promise(done => setTimeout(done, ms));

// 128 random bits as a UUID; crypto.randomUUID is there over https alone.
const newKey = () => {
  const digits = [...crypto.getRandomValues(new Uint8Array(16))].map(each => each.toString(16).padStart(2, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
};

// The parts of a multipart form (RFC 7578), made here: a browser's FormData writes CR LF where a text has LF.
const encode = parts => {
  const boundary = `form-${newKey()}`;
  const quoted = text => text.replace(/["\r\n]/g, each => encodeURIComponent(each));
  const pieces = [];
  for (const [name, value] of parts) {
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name)}"`;
    if (value instanceof File) pieces.push(`${head}; filename="${quoted(value.name)}"\r\nContent-Type: ${value.type || 'application/octet-stream'}\r\n\r\n`);
    else pieces.push(`${head}\r\n\r\n`);
    pieces.push(value, '\r\n');
  }
  pieces.push(`--${boundary}--\r\n`);
  return {body: new Blob(pieces), type: `multipart/form-data; boundary=${boundary}`};
};

// One POST; fetch does not say how much of a body has been sent. status 0: no answer came.
const post = (url, {body, type}, headers, progressed) => new Promise(done => {
  const request = new XMLHttpRequest();
  request.open('POST', url);
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  if (type) request.setRequestHeader('Content-Type', type);
  request.upload.addEventListener('progress', event => progressed?.(event.loaded / event.total));
  request.addEventListener('loadend', () => {
    let answer = null;
    try { answer = JSON.parse(request.responseText); } catch { /* of some other program in between */ }
    done({status: request.status, answer});
  });
  request.send(body);
});

// Returns the answer with the job, or null when none came to be, of which the page tells then.
const sendCall = async parts => {
  const encoded = encode(parts);
  const headers = {Accept: 'application/json', 'Idempotency-Key': newKey()};
  const say = words => { byId('sending').textContent = words; };
  const progressed = share => say(share < 1 ? `Sending: ${Math.floor(share * 100)} %` : 'Sent.');
  for (let tries = 1; ; tries += 1) {
    say('Sending…');
    const {status, answer} = await post(call.action, encoded, headers, progressed);
    say('');
    if (status === 202 || status === 200) return answer;
    if ((status !== 0 && !STOPPING.includes(status)) || tries === MAX_TRIES) {
      refuse(status, answer);
      return null;
    }
    say(`${status === 0 ? 'The gate does not answer.' : sentencesOf(status, answer).join(' ')} Trying again…`);
    await pause(TRY_AGAIN_MS);
  }
};

const NO_ANSWER = 'No answer came. Look whether you are connected, then run it again.';

// Sentences of an answer that is a refusal.
const sentencesOf = (status, answer) => {
  const error = answer?.error;
  if (typeof error?.message !== 'string') return [status === 0 ? NO_ANSWER : `This did not work: the answer was ${status}.`];
  return [error.details && error.type !== 'argument_refused' ? `${error.message} (${error.details})` : error.message];
};

// What names the field is left out where it stands beside it.
const besideItsField = sentence => {
  const rule = sentence.replace(/^The argument `[^`]*` is not accepted: /, '');
  return rule.charAt(0).toUpperCase() + rule.slice(1);
};

const refuse = (status, answer) => {
  const general = [];
  for (const [node, {errors}] of Object.entries(answer?.node_errors ?? {}))
    for (const error of errors ?? []) {
      const input = `${node}.${error.extra_info?.input_name}`;
      const words = [error.message, error.details].filter(Boolean).join(': ');
      const field = fields.find(each => each.fills.includes(input));
      if (field) field.fail(words);
      else general.push(words);
    }
  const named = answer?.error?.type === 'argument_refused' && fields.find(each => each.name === answer.error.details);
  if (named) named.fail(besideItsField(answer.error.message));
  if (focusWrong() || general.length) showRefused([...sentencesOf(status, answer), ...general], status === 401);
};

const showRefused = (sentences, isSignedOut) => {
  const box = byId('refused');
  box.replaceChildren(...sentences.map(each => make('p', {class: 'words'}, each)));
  if (isSignedOut) box.append(make('a', {href: call.dataset.login, target: '_blank', rel: 'noopener'}, 'Sign in, in another tab'));
  box.hidden = sentences.length === 0;
};
